"""What came out? Logs of events, their readers, hooks and stores."""
