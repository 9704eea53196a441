(() => {
  const pages = {o: '/', n: '/nodes', a: '/apps', j: '/jobs', d: '/dead-letters', c: '/config', e: '/events'};
  let waiting = 0;
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input,textarea,select,[contenteditable]')) return;
    if (event.key === '/') { const field = document.querySelector('.rl-search input'); if (field) { field.focus(); event.preventDefault(); } }
    else if (event.key === 'g') waiting = Date.now();
    else if (Date.now() - waiting < 1200 && pages[event.key]) location.href = pages[event.key];
  });
})();
