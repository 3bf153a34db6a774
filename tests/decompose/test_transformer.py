"""`TuckerTransformer` as a scikit-learn transformer, on matrices and on N-way samples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from tenfac import RankError, ShapeError, TuckerTransformer, load, save
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says
from tests.oracles import kron_all, tucker_dense


def samples(n=30, shape=(6, 5, 4), rank=(2, 3, 2), noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    factors = [rng.standard_normal((size, r)) for size, r in zip(shape, rank, strict=True)]
    X = tucker_dense(rng.standard_normal((n, *rank)), [np.eye(n), *factors])
    return X + 3 + noise * rng.standard_normal(X.shape)


@parametrize_with_checks(
    [TuckerTransformer(), TuckerTransformer(tol=0.2), TuckerTransformer(1, center=False)]
)
def test_the_checks_of_scikit_learn_pass(estimator, check):
    before = estimator.get_params()
    check(estimator)
    assert_equal(estimator.get_params(), before)


def test_tensors_that_require_gradients_are_read_like_arrays():
    torch = pytest.importorskip("torch")
    X = samples()
    tensor = torch.tensor(X, requires_grad=True)
    model, want = TuckerTransformer(2).fit(tensor), TuckerTransformer(2).fit(X)
    features = want.transform(X)
    assert_equal(model.transform(tensor), features)
    back = model.inverse_transform(torch.tensor(features, requires_grad=True))
    assert_equal(back, want.inverse_transform(features))


def test_features_are_the_coordinates_in_the_factors_by_the_kronecker_formula():
    X = samples(noise=0.1)
    model = TuckerTransformer(rank=(2, 3, 1)).fit(X)
    want = (X - X.mean(axis=0)).reshape(30, -1) @ kron_all(model.factors_)
    assert_close(model.transform(X), want)
    assert_close(model.fit_transform(X), want)
    assert_close(model.components_.reshape(6, -1) @ model.components_.reshape(6, -1).T, np.eye(6))
    back = model.mean_ + (want @ kron_all(model.factors_).T).reshape(X.shape)
    assert_close(model.inverse_transform(want), back)


def test_samples_of_low_rank_come_back_exactly_and_unseen_ones_too():
    X = samples(n=40)
    model = TuckerTransformer(rank=(2, 3, 2)).fit(X[:30])
    assert_close(model.inverse_transform(model.transform(X[30:])), X[30:], factor=1e4)
    assert_above(model.score(X[30:]), -1e-13, "score")
    assert_equal(TuckerTransformer(tol=1e-6).fit(X).rank_, (2, 3, 2))


def test_the_score_and_the_reported_error_are_the_true_error():
    X, new = samples(noise=0.5), samples(noise=0.5, seed=1)
    model = TuckerTransformer(rank=2).fit(X)
    for data, got in ((X, -model.info_.rel_error), (new, model.score(new)), (X, model.score(X))):
        rest = data - model.inverse_transform(model.transform(data))
        want = -np.linalg.norm(rest) / np.linalg.norm(data - model.mean_)
        assert_below(abs(got / want - 1), 1e-9, "relative difference of the error")


def test_a_matrix_of_samples_is_decomposed_as_by_principal_components():
    X = np.random.default_rng(0).standard_normal((50, 8)) * 2.0 ** -np.arange(8)
    model, pca = TuckerTransformer(rank=3).fit(X), PCA(3).fit(X)
    assert_close(model.inverse_transform(model.transform(X)), pca.inverse_transform(pca.transform(X)))


def test_without_centering_the_mean_is_zero():
    X = samples()
    model = TuckerTransformer(rank=3, center=False).fit(X)
    assert_equal(model.mean_, np.zeros((6, 5, 4)))
    assert_close(model.transform(X), X.reshape(30, -1) @ kron_all(model.factors_))


def test_a_pipeline_and_a_grid_search_over_rank_find_the_rank():
    X = samples(n=60, rank=(2, 2, 2), noise=0.05)
    y = X[:, 0, 0, 0] > np.median(X[:, 0, 0, 0])
    pipeline = make_pipeline(TuckerTransformer(rank=2), LogisticRegression())
    assert_above(pipeline.fit(X[:40], y[:40]).score(X[40:], y[40:]), 0.8, "accuracy")
    search = GridSearchCV(TuckerTransformer(), {"rank": [1, (2, 2, 2)]}, cv=3).fit(X)
    assert_equal(search.best_params_, {"rank": (2, 2, 2)})


def test_a_clone_is_unfitted_and_learns_the_same_bits():
    X = samples(noise=0.1)
    model = TuckerTransformer(rank=2).fit(X)
    again = clone(model)
    assert not hasattr(again, "factors_")
    assert_equal(again.fit(X).transform(X), model.transform(X))


def test_names_of_features_count_the_products_of_ranks():
    model = TuckerTransformer(rank=(1, 2, 1)).fit(samples())
    assert_equal(list(model.get_feature_names_out()), ["tuckertransformer0", "tuckertransformer1"])
    frame = pytest.importorskip("pandas")
    out = TuckerTransformer(rank=(1, 2, 1)).set_output(transform="pandas").fit_transform(samples())
    assert isinstance(out, frame.DataFrame)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_is_kept(dtype):
    X = samples().astype(dtype)
    model = TuckerTransformer(rank=2).fit(X)
    for array in (model.transform(X), model.inverse_transform(model.transform(X)), *model.factors_):
        assert_equal(str(array.dtype), dtype)


def test_a_saved_model_transforms_to_the_same_bits(tmp_path):
    X = samples(noise=0.1)
    model = TuckerTransformer(rank=(2, 2, 1)).fit(X)
    save(model, tmp_path / "model.tenfac")
    again = load(tmp_path / "model.tenfac")
    assert_equal(again.transform(X), model.transform(X))
    assert_equal((again.rank, again.info_), ([2, 2, 1], model.info_))


def test_wrong_input_is_refused():
    X = samples()
    with pytest.raises(RankError) as error:
        TuckerTransformer(rank=2, tol=0.1).fit(X)
    assert_says(error, "TuckerTransformer", "rank=2", "tol=0.1")
    with pytest.raises(RankError) as error:
        TuckerTransformer(rank=5).fit(X)
    assert_says(error, "TuckerTransformer", "got 5", "(6, 5, 4)")
    model = TuckerTransformer(rank=2).fit(X)
    with pytest.raises(ShapeError) as error:
        model.transform(X[:, :, :3])
    assert_says(error, "(6, 5, 4)", "(6, 3, 4)")
    with pytest.raises(ShapeError) as error:
        model.inverse_transform(np.ones((2, 7)))
    assert_says(error, "8 columns", "7")
