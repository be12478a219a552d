"""The objectives, one a file: what data each needs, its loss, its paper."""
