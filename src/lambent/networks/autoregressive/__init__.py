"""Autoregressive networks over vectors, text and images: MADE, NADE, LSTM, transformer and PixelCNN."""
