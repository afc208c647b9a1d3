"""Reads a page strictly: every element closed where it must be, every id once."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input"}


@dataclass
class Node:
    tag: str
    attrs: dict[str, str]
    children: list = field(default_factory=list)  # nodes and texts

    def every(self, tag=None, **attrs):
        """All nodes below this one with this tag and these attributes (class_: one of them)."""
        wanted_class = attrs.pop("class_", None)
        for child in self.children:
            if isinstance(child, str):
                continue
            fits = tag in (None, child.tag) and attrs.items() <= child.attrs.items()
            if fits and (not wanted_class or wanted_class in child.attrs.get("class", "").split()):
                yield child
            yield from child.every(
                tag, **attrs, **({"class_": wanted_class} if wanted_class else {})
            )

    def one(self, tag=None, **attrs):
        (found,) = self.every(tag, **attrs)
        return found

    def text(self):
        """The text in it, as a reader sees it."""
        return " ".join("".join(self._texts()).split())

    def _texts(self):
        for child in self.children:
            yield from [child] if isinstance(child, str) else child._texts()
            if not isinstance(child, str) and child.tag in ("dt", "dd", "th", "td", "p", "li"):
                yield " "


class Tree(HTMLParser):
    """Raises AssertionError for a page that is not well-formed."""

    def __init__(self, text):
        super().__init__()
        self.root = Node("", {})
        self.open, self.ids = [self.root], set()
        self.feed(text)
        self.close()
        assert len(self.open) == 1, f"not closed: {self.open[-1].tag}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        node = Node(tag, {key: value or "" for key, value in attrs})
        name = node.attrs.get("id")
        assert name is None or name not in self.ids, f"twice: id {name}"
        self.ids.add(name)
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        closed = self.open.pop().tag
        assert closed == tag, f"</{tag}> closes <{closed}>"

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parse(text):
    """The root of the page."""
    return Tree(text).root
