"""What `perf script` printed: whose each sample is, and all of them as one picture. Reads and writes text only."""

import re
from collections import Counter
from xml.sax.saxutils import escape

# `ffffffff813a4413 schedule ([kernel.kallsyms])`: an address, a name, and the file that it is in.
FRAME = re.compile(r"^\s*[0-9a-f]+ (.*) \((.*)\)$")
HEAD = re.compile(r"^(\S.*?)\s+\d+(?:/\d+)?\s")
ALLOCATOR = re.compile(r"^_*(mi_|malloc|calloc|realloc|free$|cfree|int_(malloc|free)|posix_memalign|rust_(alloc|dealloc|realloc)|rdl_)")
# What the kernel does for us, by what is anywhere in the stack; the first that fits.
KERNEL = (
    ("kernel: network", re.compile(r"tcp_|sock_|inet_|skb|net_rx|__sys_(send|recv)")),
    ("kernel: memory", re.compile(r"page_fault|madvise|mprotect|mmap|pagemap|zap_")),
    ("kernel: waiting and waking", re.compile(r"epoll|futex|nanosleep|schedule|eventfd")),
)
CRATES = {
    "wasmtime": "Wasmtime", "cranelift": "Wasmtime", "wiggle": "Wasmtime", "pulley": "Wasmtime",
    "tokio": "tokio", "mio": "tokio", "async_nats": "NATS client", "wess": "Wess", "rocksdb": "RocksDB",
}
COLOURS = {
    "Wasmtime": "#b9a3e3", "guest": "#7fc8a9", "NATS client": "#8fb8ea", "tokio": "#9ad4dd", "Wess": "#f2b872", "RocksDB": "#e3c7a3",
    "allocator": "#e79aa4", "kernel: network": "#c9c9c9", "kernel: memory": "#b3b3b3", "kernel: waiting and waking": "#dadada",
    "kernel: rest": "#9f9f9f", "rest": "#d8cfc0",
}


def samples(text):
    """Stacks from the thread at the root to where it was, each frame a name and a file; and how often each was seen."""
    found = Counter()
    for block in text.split("\n\n"):
        head, *frames = block.strip("\n").split("\n")
        stack = [match.groups() for frame in frames if (match := FRAME.match(frame))]
        if stack and (thread := HEAD.match(head)):
            while len(stack) > 1 and stack[-1] == ("[unknown]", "[unknown]"):
                stack.pop()
            found[((re.sub(r"-\d+$", "", thread[1]), "thread"), *reversed(stack))] += 1
    return found


def path(name):
    """A Rust name without generics, traits and closures: `<&a::B<C> as d::E>::f::{{closure}}` is `a::B::f`."""
    name = name.replace("->", "")
    while (bare := re.sub(r"(?<=[\w}])(::)?<[^<>]*>", "", name)) != name:
        name = bare
    name = re.sub(r"<[&*]*(?:mut |dyn )?([^<>]*?)(?: as [^<>]*)?>", r"\1", name)
    return re.sub(r"::\{\{[\w.]+\}\}|^[&*]+|\(|\)", "", name)


def crate(name):
    return re.match(r"\w*", path(name))[0]


def of_frame(name, file):
    """Whose a frame is by itself; None for a library of everybody's."""
    if file.startswith("[kernel"):
        return "kernel"
    if file.endswith(".plain") or "/artifacts/" in file:
        return "guest"
    if ALLOCATOR.match(name):
        return "allocator"
    return next((owner for prefix, owner in CRATES.items() if crate(name).startswith(prefix)), None)


def owner(stack):
    """Whose a sample is: what runs, or who called the library that does."""
    for name, file in reversed(stack):
        of = of_frame(name, file)
        if of == "kernel":
            names = " ".join(name for name, file in stack if file.startswith("[kernel"))
            return next((part for part, pattern in KERNEL if pattern.search(names)), "kernel: rest")
        if of:
            return of
    return "rest"


def owners(found, us_per_call):
    """Each owner's part of all samples, and of a call's processor time; the greatest first."""
    counted = Counter()
    for stack, count in found.items():
        counted[owner(stack)] += count
    total = counted.total()
    return [
        {"owner": of, "percent": 100 * count / total, "us_per_call": us_per_call * count / total} for of, count in counted.most_common()
    ]


def label(name, file):
    """A frame's name for people: its last two parts. Whose it is, its colour says."""
    return "guest code" if of_frame(name, file) == "guest" else "::".join(path(name).split("::")[-2:]) or name


class Frame:
    """A box of the picture."""

    def __init__(self, name, of):
        self.name, self.of, self.count, self.callees = name, of, 0, {}


def boxes(stack):
    """A stack as names and owners, without what says nothing: libraries that go on to somebody else, and the kernel's inside."""
    (thread, _), *frames = stack
    yield thread, "rest"
    for at, (name, file) in enumerate(frames):
        of = of_frame(name, file)
        if of == "kernel":
            yield (owner(stack),) * 2
            return
        if of or at == len(frames) - 1:
            yield label(name, file), of or owner(stack)


def tree(found):
    """All stacks as one tree."""
    root = Frame("all", "rest")
    for stack, count in found.items():
        frame = root
        frame.count += count
        for name, of in boxes(stack):
            frame = frame.callees.setdefault((name, of), Frame(name, of))
            frame.count += count
    return root


# In the units of the picture; a letter is as wide as it is in the widest of the usual fixed fonts.
WIDTH, ROW, LETTER, NARROWEST = 1200, 17, 6.7, 4


def svg(found, title):
    """An icicle: callers above what they call, as wide as their part of the time; what is too narrow to see is left out."""
    root = tree(found)
    drawn = list(layout(root, 0.0, WIDTH / root.count, -1))[1:]
    below = (max(depth for _, _, depth in drawn) + 2) * ROW
    style = "text{font:11px ui-monospace,monospace;fill:#1b1b1b}.key{fill:#7d8590}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {below + ROW}"><title>{escape(title)}</title><style>{style}</style>'
    return "\n".join([head, *(box(root, *one) for one in drawn), *legend({frame.of for frame, _, _ in drawn}, below), "</svg>"]) + "\n"


def layout(frame, left, scale, depth):
    """Each frame that is wide enough, with where it begins and how deep it is."""
    yield frame, left, depth
    for callee in sorted(frame.callees.values(), key=lambda callee: (-callee.count, callee.name)):
        if callee.count * scale >= NARROWEST:
            yield from layout(callee, left, scale, depth + 1)
        left += callee.count * scale


def box(root, frame, left, depth):
    width, top = WIDTH * frame.count / root.count, depth * ROW
    fits = int((width - 4) / LETTER)
    text = frame.name if len(frame.name) <= fits else frame.name[: fits - 1] + "…" if fits > 4 else ""
    return (
        f"<g><title>{escape(frame.name)}, {escape(frame.of)}: {100 * frame.count / root.count:.1f} %</title>"
        f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 1}" fill="{COLOURS[frame.of]}"/>'
        + (f'<text x="{left + 3:.1f}" y="{top + 12}">{escape(text)}</text>' if text else "")
        + "</g>"
    )


def legend(seen, top):
    left = 0
    for of in COLOURS:
        if of in seen:
            yield f'<rect x="{left}" y="{top}" width="12" height="12" fill="{COLOURS[of]}"/>'
            yield f'<text class="key" x="{left + 17}" y="{top + 10}">{of}</text>'
            left += 34 + round(len(of) * LETTER)
