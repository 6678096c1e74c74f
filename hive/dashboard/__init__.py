"""The dashboard: an unprivileged web server that renders the daemon's data and forwards the operator's decisions."""
