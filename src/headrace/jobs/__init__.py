"""Files of requests that run without a client, and survive anything."""
