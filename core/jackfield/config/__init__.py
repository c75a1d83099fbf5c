"""Every option, once; and the resolved plan."""
