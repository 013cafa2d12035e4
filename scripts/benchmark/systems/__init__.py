"""What is measured: one module for each way from process to process."""
