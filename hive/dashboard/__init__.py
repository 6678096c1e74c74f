"""The dashboard: a web server without power that draws what the daemon says and passes on what an operator decides."""
