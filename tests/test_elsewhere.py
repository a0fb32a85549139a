"""Names that people bring from other libraries: an error says what they are called here."""

import re
import subprocess
import sys
from functools import reduce

import pytest

import flows
from flows.elsewhere import CALLED

LIBRARIES = {"flowjax", "paramax", "zuko", "nflows", "normflows", "distrax", "TFP", "bijx", "pzflow", "flowMC", "NumPyro"}
LIBRARIES |= {"sbi", "torch", "scikit-learn", "PyMC", "flows.transformers"}


@pytest.mark.parametrize("name", CALLED)
def test_a_name_of_another_library_is_told_what_it_is_called_here(name):
    whose, called = CALLED[name]
    expected = f"module 'flows' has no attribute {name!r}, a name of {whose}; here it is {called}"
    with pytest.raises(AttributeError, match=f"^{re.escape(expected)}$") as told:
        getattr(flows, name)
    here = re.findall(r"\bflows((?:\.\w+)+)", called)
    assert here and called.startswith("flows.") and {*whose.split(", ")} <= LIBRARIES and name not in flows.__all__
    for path in here:
        assert reduce(getattr, path[1:].split("."), flows) is not None, f"flows{path} is no name"
    assert told.value.name == name


def test_names_that_people_bring_most():
    assert len(CALLED) <= 60
    brought = ("Chain", "Permutation", "MaskedCoupling", "CompositeTransform", "StandardNormal", "Transformed", "log_prob")
    assert {*brought, "masked_autoregressive_flow"} <= CALLED.keys()


def test_other_names_keep_the_message_of_python():
    for name in ("Serail", "_private", "__wrapped__"):
        with pytest.raises(AttributeError, match=rf"^module 'flows' has no attribute '{name}'$"):
            getattr(flows, name)
    assert not hasattr(flows, "Chain") and "Chain" not in dir(flows) and getattr(flows, "Chain", None) is None
    with pytest.raises(ImportError, match="cannot import name 'Chain' from 'flows'"):
        from flows import Chain  # noqa: F401


def test_they_are_read_only_where_a_name_is_not_found():
    """The import is as quick as it was, and Python suggests no third name after the hint."""
    code = "import sys, flows; print('flows.elsewhere' in sys.modules, flush=True); flows.NCSF"  # which is much like NSF
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stdout == "False\n"
    message = f"module 'flows' has no attribute 'NCSF', a name of zuko; here it is {CALLED['NCSF'][1]}"
    assert done.stderr.rstrip().endswith(f"AttributeError: {message}")
