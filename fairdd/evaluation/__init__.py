"""Evaluation of a set of images: train networks on it, measure accuracy and fairness, project it to a plane."""
