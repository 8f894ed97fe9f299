"""Where bytes come from and go to: every backend behind one protocol, a cache before the downloads."""
