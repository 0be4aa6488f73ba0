"""What load/stacks.py makes of what perf printed."""

import unittest
import xml.etree.ElementTree as ElementTree

import stacks

PRINTED = """\
wess-exec-1  9699/9726  24952.140106:\x20
\t          16e0ba __memset_avx512_unaligned_erms (/usr/lib/libc.so.6)
\t         1ac4d17 <wasmtime::vm::PoolingAllocator as wasmtime::vm::Allocator<u8>>::deallocate::{{closure}} (/bin/wess-worker)
\t         10e7f8d wess_worker::guest::invoke::invoke::{{closure}} (/bin/wess-worker)
\t          d43dad <core::panic::AssertUnwindSafe<F> as core::future::Future>::poll (/bin/wess-worker)
\tffffffffffffffff [unknown] ([unknown])

wess-exec-0  9699/9724  24952.141177:\x20
\tffffffff81e43a75 skb_clone ([kernel.kallsyms])
\tffffffff8201030f tcp_sendmsg ([kernel.kallsyms])
\t           fde9d __GI___writev (/usr/lib/libc.so.6)
\t         2945c50 <&mio::net::TcpStream as std::io::Write>::write_vectored (/bin/wess-worker)

wess-exec-0  9699/9724  24952.142177:\x20
\t            1239 [unknown] (data/artifacts/7116/3151.plain)
\t         10e7f8d wess_worker::guest::invoke::invoke (/bin/wess-worker)

wess-exec-0  9699/9724  24952.143177:\x20
\t           891f4 mi_free (/bin/wess-worker)
\t         10e7f8d wess_worker::guest::invoke::invoke (/bin/wess-worker)
"""


class Stacks(unittest.TestCase):
    def setUp(self):
        self.found = stacks.samples(PRINTED)

    def test_a_library_of_everybodys_is_its_callers_and_the_kernel_is_divided(self):
        owners = {of["owner"]: (of["percent"], of["us_per_call"]) for of in stacks.owners(self.found, 8.0)}
        self.assertEqual(owners, dict.fromkeys(("Wasmtime", "kernel: network", "guest", "allocator"), (25.0, 2.0)))

    def test_threads_that_differ_by_their_number_are_one(self):
        self.assertEqual({stack[0] for stack in self.found}, {("wess-exec", "thread")})

    def test_names_lose_generics_traits_and_closures(self):
        self.assertEqual(stacks.path("<&mio::net::TcpStream as std::io::Write>::write_vectored"), "mio::net::TcpStream::write_vectored")
        self.assertEqual(stacks.path("core::ptr::drop_in_place<a::B<c::D>>"), "core::ptr::drop_in_place")
        self.assertEqual(stacks.path("tokio::task::Core<T,S>::poll::{{closure}}"), "tokio::task::Core::poll")
        self.assertEqual(stacks.crate("<dyn wess_worker::A as core::B>::f"), "wess_worker")

    def test_the_picture_has_a_box_for_each_frame_that_says_something(self):
        drawn = stacks.svg(self.found, "of <four>")
        titles = [title.text for title in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}title")]
        self.assertEqual(titles[0], "of <four>")
        self.assertIn("wess-exec, rest: 100.0 %", titles)
        self.assertIn("invoke::invoke, Wess: 75.0 %", titles)
        self.assertIn("kernel: network, kernel: network: 25.0 %", titles)
        self.assertFalse(any("AssertUnwindSafe" in title or "tcp_sendmsg" in title for title in titles), titles)
        self.assertEqual(stacks.svg(stacks.samples(PRINTED), "of <four>"), drawn)


if __name__ == "__main__":
    unittest.main(verbosity=2)
