"""What operators watch: health, metrics and who may read them, logs."""
