"""The parts of the corpus generator: vocabulary, prose, markup and encodings of the shipped pages."""
