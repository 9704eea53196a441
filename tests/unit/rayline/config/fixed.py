"""Constants named like tunables that no operator tunes, and why; `test_declared` holds this list to the code."""

from __future__ import annotations

from typing import Final

_REASONS: Final = {
    "carries what users' code prints, whose limits are settings (`logs.…`); these are sizes of buffers, and the rhythm": """
        rayline.topics: LOGS_BYTES
        workers.output.capture: CONNECT_SECONDS LOOK_SECONDS MAX_OPEN_LINES PIPE_BYTES SEND_BUFFER_BYTES TELL_SECONDS
        workers.output.cell: CELL_BYTES READ_WITHIN_SECONDS
        workers.output.forwarding: FINISH_SECONDS GATHER_SECONDS RETRY_SECONDS
        workers.output.frames: MAX_HIDDEN MAX_HIDDEN_CHARS MAX_NAME_CHARS MAX_PACKET_BYTES PACKET_BYTES
        workers.output.intake: MAX_WORKERS READ_BYTES RECEIVE_BUFFER_BYTES REFUSED_SECONDS TELL_SECONDS _CUT_MARK_BYTES
        workers.output.intake: PACKETS_A_TURN
        workers.output.limits: REFILL_SECONDS
        workers.output.outbox: MAX_HELD_BYTES RECORD_BYTES _LINE_BYTES
    """,
    "part of a format or of a protocol: both sides must agree": """
        ingest.ledger_codec: MAX_CHARS MAX_OWNER_BYTES MAX_SPAN_BITS
        rayline.bus.transactions: MAX_METADATA_CHARS
        rayline.jobs: MAX_DEADLINE_DIGITS MAX_JOB_ID_BYTES
        rayline.reports: DEFAULT_INTERVAL_MS MAX_CPUS MAX_ENVIRONMENTS MAX_INTERVAL_MS MAX_PEER_TAGS MAX_REPORT_BYTES _TAG_BYTES
        rayline.results: MAX_ERROR_MESSAGE_CHARS MAX_ERROR_TYPE_CHARS
        rayline.suspects: MAX_RECORD_BYTES
        scheduler.batch: MAX_TRIED
        rayline.view_record: MAX_CHUNK_BYTES
        workers.drain_port: MAX_WORD_BYTES
        workers.job_gauge: _LINE_BYTES
        workers.model_turn: _TURN_BYTES
        rayline.spans: MAX_PARTS
        rayline.wire: MAX_HEAD_BYTES MAX_JOB_IDS_BYTES
        rayline.config.answer: MAX_SHOWN_KEY_CHARS
        rayline.config.record: MAX_KEY_BYTES MAX_TEXT_CHARS MAX_VALUE_BYTES
        rayline.lane_record: MAX_NODES REPEAT_SECONDS
        rayline.events: MAX_REASON_CHARS
        workers.feature_server: MAX_JOBS_PER_BATCH
        workers.heartbeat: MAX_INTERVAL_SECONDS MIN_INTERVAL_SECONDS
        runtime_env.bundle: MAX_LAYERS MAX_MANIFEST_BYTES
        runtime_env.model_release: MAX_RELEASE_BYTES
        runtime_env.peers.metainfo: BLOCK_BYTES MAX_METAINFO_BYTES MAX_PIECE_BYTES _HASH_BYTES
        runtime_env.store.protocol: _MIN_HEX
    """,
    "protects against what comes from outside: raising it would remove the protection": """
        ingest.admission: LETTER_ROOM_BYTES MAX_HEADERS MAX_HEADER_BYTES
        ingest.lane: MAX_CLAIM_CHARS
        rayline.bus.consumer: MAX_POLL_INFLATED_BYTES
        rayline.bus.cut_records: MAX_KEPT_BYTES MAX_SCANNED_RECORDS
        rayline.bus.inflation: MAX_INFLATED_BYTES MAX_SCANNED_BYTES _KEPT_BYTES _LENGTH_BYTES _PIECE_BYTES
        rayline.bus.inflation: _SLOWLY_SCANNED_BYTES _XERIAL_HEADER_BYTES
        rayline.bus.record_batch: MAX_BATCH_BYTES
        rayline.config.last_good: MAX_REMEMBERED
        rayline.config.state: MAX_KEYS MAX_REASON_CHARS
        rayline.models: MAX_MODELS MAX_PROBLEM_CHARS
        rayline.versions: MAX_VERSIONS MAX_WEIGHT
        rayline.config.watch: MAX_NOTED MAX_PENDING
        rayline.environment_manifest: MAX_REQUIREMENTS
        rayline.logs: MAX_LINE_CHARS _LEAST_SECRET_CHARS
        rayline.printed: MAX_RECORD_BYTES
        rayline.metrics.process: MAX_STALLS_TOLD _REQUEST_SECONDS
        scheduler.metering: MAX_WEIGHTS
        rayline.manifest: MAX_HASHED_FILES
        rayline.result_watch: MAX_REMEMBERED
        rayline.yaml_lines: MAX_FILE_BYTES
        runtime_env.build.own_layers: MAX_APP_FILES
        runtime_env.build.uv_tool: _MAX_LINES
        runtime_env.layer_reader: MAX_DEPTH MAX_LINK_HOPS MAX_PATH_BYTES MAX_WINDOW_BYTES _RATIO_FROM_BYTES
        runtime_env.unpack: _FREE_MARGIN_BYTES
        runtime_env.layer_reader: Limits.max_bytes Limits.max_files Limits.max_ratio
        runtime_env.preflight: TRACEBACK_LINES
        runtime_env.providers: MAX_TOLD_CHARS
        scheduler.weights.fleet: MAX_DEPARTED
        workers.activation: MAX_TOLD_CHARS
        workers.failures: MAX_TRACEBACKS_PER_SECOND MAX_TRACEBACK_CHARS
        workers.bundle_process: MAX_TOLD_CHARS
        workers.channel: MAX_REASON_CHARS
        workers.executor: MAX_CONTRACT_MESSAGE_CHARS
        workers.gateway: MAX_REASON_CHARS
        workers.notices.interruption_endpoint: MAX_BODY_BYTES
        workers.notices.prestop: MAX_HEAD_BYTES
        workers.pool: MAX_ACTORS_PER_NODE
    """,
    "fixed when a topic, a client or a process is made: a restart would be needed": """
        ingest.lane: HEARTBEAT_MS
        deploy.agent_process: DEFAULT_GRACE_SECONDS _REQUEST_TIMEOUT_MS
        deploy.keeper.lease: SESSION_TIMEOUT_MS _HEARTBEAT_MS _POLL_MS _TRANSACTION_TIMEOUT_MS
        rayline.topics: DEFAULT_MAX_MESSAGE_BYTES _DAY_MS _HOUR_MS _SEGMENT_MS
        rayline.bus.consumer: BUSY_FETCH_BYTES BUSY_FETCH_WAIT_MS
        workers.cluster: HEAD_SECONDS HEALTH_CHECK_TIMEOUT_MS LOG_ROTATION_BYTES OBJECT_STORE_BYTES
        runtime_env.build.conda_layer: TIMEOUT_SECONDS
        runtime_env.build.interpreters: _PROBE_SECONDS
        runtime_env.build.model_layer: _TIMEOUT_SECONDS
        runtime_env.build.own_layers: _TIMEOUT_SECONDS
        runtime_env.build.uv_tool: TIMEOUT_SECONDS
        runtime_env.store.http: TIMEOUT_SECONDS
        rayline.client: DEFAULT_MAX_IN_FLIGHT
        runtime_env.build.builder: _THREADS
        runtime_env.build.model_layer: _LEVEL
        runtime_env.bundle: Bundle.startup_seconds
        runtime_env.layer_writer: COMPRESSION_LEVEL
        runtime_env.node.models: GENERATIONS_KEPT
        runtime_env.unpack: _THREADS
        workers.agent: PodOptions.grace_seconds
        workers.cluster: WORKER_NICE
    """,
    "how long one step waits for the next by design of that module, found by measuring; no load makes another value better": """
        ingest.batches: MAX_BATCH_BYTES _MIN_BATCH_BYTES
        ingest.lane: MAX_POLL_RECORDS POLL_MS REFRESH_SECONDS RESUME_SHARE STOP_SECONDS
        ingest.lane_process: _SPEC_SECONDS
        ingest.ledger_codec: _BITMAP_IS_SMALL_BYTES
        ingest.partition: MAX_OUTSTANDING
        ingest.publisher: MAX_BYTES_A_TRANSACTION SERVICE_SHARE
        ingest.open_transactions: LOOK_SECONDS RETRY_SECONDS
        ingest.suspects: SENDINGS_KEPT READ_SECONDS TIDY_SECONDS WRITE_SECONDS
        rayline.bus.admin: _VISIBLE_SECONDS
        rayline.bus.consumer: _IDENTITY_SECONDS
        rayline.bus.log: _POLL_MS
        rayline.bus.producers: _METADATA_SECONDS
        rayline.bus.offsets: _RETRY_SECONDS
        rayline.bus.produce: MAX_REQUESTS MAX_WAITING_BYTES
        rayline.bus.progress: _COORDINATOR_SECONDS
        rayline.bus.transactions: RETRY_MS _ABORT_SECONDS _CANCEL_SECONDS
        rayline.client: _CLOCK_SLACK_MS _POLL_MS
        deploy.agent_process: _APPS_RETRY_SECONDS _FULFIL_SECONDS
        deploy.keeper.process: _LOOK_SECONDS _REPORT_MEMORY_SECONDS
        deploy.resource_process: _EVENTS_SECONDS _MAX_UNTOLD
        rayline.config.watch: CHECK_SECONDS PRESENCE_SECONDS RETRY_SECONDS START_SECONDS _GOOD_BYE_SECONDS
        rayline.config.watch: _POLL_MS _REPLAY_SECONDS _TURN_SECONDS
        rayline.config.watch: _LOGGED_A_TURN
        rayline.config.answer: Presence.refresh_seconds
        rayline.metrics.process: GATHER_SECONDS
        workers.model_swap: LOOK_SECONDS RETRY_SECONDS WAIT_SHARE
        rayline.result_watch: _POLL_MS
        scheduler.budget: FADE_SECONDS RESERVE_REFILL_SECONDS
        scheduler.dispatcher: MAX_PASSED MOST_NEEDED_SHARE STANDSTILL_SECONDS SWEEP_SECONDS UNSEEN_SECONDS
        scheduler.hedging: MIN_SAMPLES TOO_SHORT_FACTOR TOO_SHORT_FADES UNMEASURED_SHARE WINDOW_SAMPLES
        scheduler.listener: _ON_THE_WAY_SECONDS
        scheduler.node_feed: MEMORY_SECONDS _POLL_MS
        runtime_env.node.models: FIRST_RETRY_SECONDS MAX_RETRY_SECONDS
        scheduler.resource: NEWS_PAUSE_SECONDS
        scheduler.resource: WHOLE_EVERY_ROUNDS
        scheduler.keeper.backoff: BackoffPolicy.cap_ms BackoffPolicy.first_ms BackoffPolicy.healthy_ms
        scheduler.keeper.decide: Limits.ahead_ms
        scheduler.router: BUSY_PAUSE_SECONDS FIRST_LOSS_PAUSE_SECONDS LAST_LOSS_PAUSE_SECONDS
        scheduler.departures: DEPARTURES_KEPT
        scheduler.router: MOST_WEIGHT PICKS_KEPT UPDATES_KEPT USUAL_FADES
        scheduler.seats: EVIDENCE_SECONDS EWMA_SHARE QUEUE_BEHIND_SECONDS SHARE_SECONDS
        scheduler.seats: CORES_FOR_ONE_MORE PRIOR_BATCHES PRIOR_VARIANCE RUNNING_PATIENCE
        scheduler.trials: NEWS_SECONDS
        workers.actor: HAND_BACK_SECONDS
        workers.actor: WAITING_PER_CALL
        workers.gate: CALL_SHARE MAX_PATIENCE_SECONDS PATIENCE_SECONDS
        workers.agent: ENVIRONMENTS_SECONDS GONE_SECONDS LEAVE_SECONDS MIN_HAND_BACK_SECONDS NOTICE_SECONDS SAMPLE_SECONDS
        workers.agent: TELL_SECONDS
        workers.actor_tally: FORGET_SECONDS
        workers.app_loop: COLLECT_SECONDS
        workers.channel: CONNECT_SECONDS EXIT_SECONDS
        workers.cluster: STOP_SECONDS _POLL_SECONDS
        runtime_env.peers.allocator: KEPT_BYTES
        workers.drain_port: IDLE_POLL_SECONDS
        workers.feature_server: FLUSH_SECONDS
        workers.gateway: ANSWER_MARGIN_SECONDS DRAIN_SECONDS GONE_REPORT_SECONDS HURRY_SECONDS PUBLISH_SECONDS STALE_SECONDS
        workers.gateway: STEP_SECONDS
        workers.heartbeat: JITTER_SHARE PATIENCE_SECONDS
        workers.host_actor: LOOK_SECONDS
        workers.notices.interruption_endpoint: POLL_SECONDS TIMEOUT_SECONDS
        workers.notices.interruption_file: POLL_SECONDS
        workers.notices.prestop: GOODBYE_SECONDS HEAD_SECONDS
        workers.pod_actors: HAND_BACK_SECONDS
        workers.pod_ray: LOOK_SECONDS STOP_SECONDS
        workers.pool: FIRST_BACKOFF_SECONDS MAX_BACKOFF_SECONDS
        runtime_env.node.activation: FIRST_RETRY_SECONDS MAX_RETRY_SECONDS
        workers.reporting: ATTEMPT_SECONDS RETRY_SECONDS
        workers.sampling.cards: QUERY_SECONDS TIMEOUT_SECONDS
        workers.sampling.files: CHUNK_BYTES
        workers.sessions: _POLL_SECONDS
        workers.watchdog: BACKSTOP_SECONDS GOODBYE_SECONDS HANG_GRACE_SECONDS TICK_SECONDS
    """,
    "follows from the heartbeat's interval, which is a setting and travels with each report": """
        scheduler.view: FORGET_AFTER_SECONDS STALE_AFTER_SECONDS SUSPECT_AFTER_SECONDS
        scheduler.view: SUSPECT_AFTER_BEATS
        workers.peering: MISSED_BEATS
    """,
    "when standing still counts as a fault, which alerts rest on: follows from the SLA, from fetches and from rounds": """
        ingest.stalls: BROKER_SILENT_SECONDS MAX_UNREAD_SECONDS OPEN_TRANSACTION_SECONDS STUCK_MARGIN_SECONDS
        ingest.stalls: UNHEARD_SECONDS
        rayline.metrics.process: LOOP_BLOCKED_SECONDS
        deploy.agent_process: _LEAST_BEATS_SECONDS
        deploy.keeper.process: _LATE_LOOK_SECONDS
        deploy.resource_process: _LEAST_ROUNDS_SECONDS
        workers.gateway: ROUND_SECONDS
    """,
    "the rhythm and safeguards of peers; the rates are arguments of a node": """
        workers.peering: RETRY_SECONDS TELL_SECONDS
        runtime_env.peers.cache: DEFAULT_FREE_BYTES
        runtime_env.peers.source: MIN_PEER_BYTES
        runtime_env.peers.limits: BETTER_FACTOR BURST_SECONDS CPU_SHARE LINK_SHARE MAX_RETEST_SECONDS METER_SECONDS MIN_RATE
        runtime_env.peers.limits: PINNED_SHARE RETEST_SECONDS STRETCH_SECONDS TEST_SECONDS TOTAL_SHARE
        runtime_env.store.slices: SLICE_BYTES
        runtime_env.peers.doorkeeper: BAN_SECONDS
        runtime_env.peers.node: LOOK_SECONDS STEER_SECONDS _CLOSE_SECONDS
        runtime_env.peers.valve: SAVED_SECONDS WINDOW_SECONDS _AHEAD_SECONDS _LIBTORRENT_SAVES_SECONDS
        runtime_env.peers.options: GIVE_UP_SECONDS
        runtime_env.peers.alerts: ANSWER_SECONDS
        runtime_env.peers.store_reader: MAX_UNWRITTEN_BYTES STORE_BACK_OFF_SECONDS _LIMIT_LOOK_SECONDS _WRITTEN_LOOK_SECONDS
        runtime_env.peers.sharing: LONELY_SECONDS SETTLE_SECONDS STALL_SECONDS
        runtime_env.peers.sharing: RUN_PIECES
        runtime_env.peers.metainfo: _WANTED_PIECES
        runtime_env.peers.source: _AT_ONCE
        runtime_env.peers.swarm: MAX_CONNECTIONS _RECONNECT_SECONDS _RESUME_SECONDS
    """,
    "belongs to a weight policy, which is a setting: another value is another policy": """
        scheduler.weights.fleet: FLAP_MEMORY_SECONDS
        scheduler.weights.fleet: HIGHEST_TOLD SAMPLES_AT_ONCE
        scheduler.weights.headroom: FULL_DISK FULL_MEMORY MAD_TO_DEVIATION RAMP_START SLOW_DEVIATIONS SLOW_ERRORS SLOW_POWER
        scheduler.weights.headroom: SLOW_RATIO THROTTLED_FROM WELL_DEVIATIONS WELL_RATIO WELL_SPEED
        scheduler.weights.headroom: CLOCK_OFF_MS LEAST_HEALTH LEAST_ROOM LEAST_SPEED MAX_FLAPS
        scheduler.weights.headroom: RAMP_SECONDS RISE_SHARE STALE_SECONDS
        scheduler.weights.wechat: LEAST_REMAINING_PERCENT STALE_SECONDS
        scheduler.weights.weigher: LEAST_OF_MEAN MOST_OF_MEAN DEFAULT_INTERVAL_SECONDS
    """,
}


def _names(text: str) -> list[str]:
    return [
        f"{module}:{name}"
        for line in text.split("\n")
        if line.strip()
        for module, _, names in [line.strip().partition(": ")]
        for name in names.split()
    ]


FIXED: Final = {name: reason for reason, text in _REASONS.items() for name in _names(text)}

# Fields of app.yaml that a running platform cannot change: they are the actors', which a deployment makes anew.
FIXED_MANIFEST: Final = {
    "Limits.execute_seconds": "the actor's: `rayline deploy` makes new ones",
    "Limits.startup_seconds": "the actor's: `rayline deploy` makes new ones",
    "Limits.max_result_bytes": "the actor's: `rayline deploy` makes new ones",
    "Scheduling.cards": "describes hardware, changes with the machines",
}
