"""CP and Tucker decomposition from some of the entries of a tensor."""
