"""CP and Tucker with learned factor functions, by conditional moments."""

from tenfac.bayes.cep.fit import fit_cep
from tenfac.bayes.cep.result import CepFit

__all__ = ["CepFit", "fit_cep"]
