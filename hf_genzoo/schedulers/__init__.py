"""Samplers that diffusers lacks, one self-contained file each: published beside the weights they are used with."""
