"""The format of snapshots, and what schedules them."""
