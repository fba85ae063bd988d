"""The fork logic: pure, one chain at a time. ``tracker`` decides, ``vectors`` reads and writes it as text."""
