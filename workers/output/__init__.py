"""What users' code prints: taken from its process, cut into lines, limited, and sent to `rayline.logs` by the pod's agent."""
