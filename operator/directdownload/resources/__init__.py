"""Typed models of everything that crosses a boundary: custom resources, job documents, reasons, names."""
