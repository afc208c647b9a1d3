"""What cannot be evaluated again is passed over; the rest is in tests/test_cli.py."""

import pytest

from miniature import small_params
from recorded import write_evaluation, write_per_image
from vlae.errors import VlaeError
from vlae.evaluation.verify import verify

RUN = "static_mnist-vlae"


def test_a_record_counts_only_with_the_values_of_each_image(tmp_path, monkeypatch):
    """Whatever is in it: half of a checkout is not a recorded evaluation."""
    monkeypatch.chdir(tmp_path)
    params = small_params(tmp_path)
    nothing = [f"{name}: not evaluated" for name in params.runs]
    record = write_evaluation(tmp_path, RUN)
    for content in (record.read_text(), "damaged", ""):
        record.write_text(content)
        assert list(verify(params, 5)) == nothing
    write_per_image(tmp_path, RUN, [-80.0] * 10000)
    with pytest.raises(VlaeError, match="not JSON"):
        list(verify(params, 5))
    record.unlink()
    assert list(verify(params, 5)) == nothing
