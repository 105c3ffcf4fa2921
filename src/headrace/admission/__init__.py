"""May it enter? Keys, tenants, size limits, abort tokens."""
