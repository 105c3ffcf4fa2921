"""When does it run? One bounded queue per model and its slots."""
