"""What travels on the topics, and in which form: pure, bytes in and bytes out, no broker."""
