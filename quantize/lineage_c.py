read_c = None
