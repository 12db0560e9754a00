"""YAML that is written for others: what is a string here is one to them as well.

PyYAML leaves off the quotes where its own reader would find a string. Go's, by which kubectl reads, finds numbers and
booleans in more words, also in names of clusters such as `y`, `08` and `1e3` (goyaml.v2/resolve.go of
https://github.com/kubernetes-sigs/yaml), and then kubectl takes no kubeconfig in which one of them stands bare.
"""

import re

import yaml

from onepass.api.meta import JSON

_READ_AS = (
    ("bool", r"[yYnN]", "yYnN"),
    ("int", r"[-+]?0[xXoObB][0-9a-fA-F_]+", "-+0"),
    ("float", r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9_]+)?", "-+.0123456789"),
)


class _Dumper(yaml.CSafeDumper):  # libyaml's writer: the one in Python takes a second for a thousand clusters
    def ignore_aliases(self, data: object) -> bool:
        return True


for _tag, _pattern, _first in _READ_AS:
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def dump(value: JSON, *, sort_keys: bool = False, allow_unicode: bool = True) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=sort_keys, allow_unicode=allow_unicode)
    return text
