"""What an instance is made of: each module makes, looks at and removes one thing."""
