"""What scripts/report.py makes of measurements."""

import tempfile
import unittest
from pathlib import Path

import report

RUN = {"date": "2026-11-28", "commit": "abc", "command": "wess bench", "machine": {"cores": 2, "CPU": "of one kind"}}


def sample(rate, responder):
    return {"calls_per_s": rate, "p50_us": 171.6, "p99_us": 99.94, "cpu_us": {"nats": None, "responder": responder}}


def case(**more):
    return {"in_flight": 50, "echo": sample(130825.4, 1.6), "worker": sample(94982.0, 9.0), "ratio": 0.731, "bare_us": 2.6, **more}


def measured(**found):
    return {"run": RUN, "report": {"cores": 2, **found}}


def goal(measured, at_least=True, wanted=0.8):
    return {"what": "of echo", "goal": wanted, "at_least": at_least, "measured": measured}


def rows(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|") and "---" not in line]


class Tables(unittest.TestCase):
    def test_a_case_is_a_line_for_each_responder_and_its_fractions_are_the_second_ones(self):
        titles, echo, worker = rows(report.table(report.lines(case())))
        self.assertEqual(titles, ["in flight", "who", "calls/s", "ratio", "p50 µs", "p99 µs", "CPU µs: responder", "bare µs"])
        self.assertEqual(echo, ["50", "echo", "130825", "", "172", "99.9", "1.6", ""])
        self.assertEqual(worker, ["50", "worker", "94982", "0.73", "172", "99.9", "9.0", "2.6"])

    def test_peers_of_a_case_bring_their_own_ratio(self):
        peers = [{"name": "nats-py", "sample": sample(70000.0, 11.0), "ratio": 0.44}]
        _, _, worker, peer = rows(report.table(report.lines(case(peers=peers))))
        self.assertEqual((worker[1], worker[3], peer[0], peer[1], peer[3]), ("worker", "0.73", "50", "nats-py", "0.44"))

    def test_a_fraction_that_names_its_responder_stands_at_that_one(self):
        reuse = {"guest": "upper", "peers": [], "echo": sample(3.0, 1.0), "fresh": sample(1.0, 1.0), "reused": sample(2.0, 1.0)}
        titles, echo, fresh, reused = rows(report.table(report.lines({**reuse, "reused_of_echo": 0.67, "fresh_of_echo": 0.33})))
        self.assertEqual((titles[3], echo[3], fresh[3], reused[3]), ("of echo", "", "0.33", "0.67"))
        self.assertNotIn("peers", titles)

    def test_a_ratio_of_another_figure_than_the_rate_stays_beside_that(self):
        scaling = {"executors": 2, "sample": sample(2.0, 1.0), "ratio": 1.5, "busy_calls_per_s": 8000.0, "busy_ratio": 1.0}
        titles, line = rows(report.table(report.lines(scaling)))
        self.assertEqual(titles[:5], ["executors", "busy calls/s", "busy ratio", "calls/s", "ratio"])
        self.assertEqual(line[:5], ["2", "8000", "1.00", "2", "1.50"])

    def test_responders_by_themselves_are_a_table_and_what_stands_alone_is_another(self):
        tail = {"quiet": sample(1000.0, 1.0), "beside": sample(900.0, 2.0), "rate_ratio": 0.9, "burners": {"burn_us": 85000.0}, "goals": [goal(0.9)]}
        text = report.tables(measured(**tail)["report"])
        self.assertEqual([row[0] for row in rows(text)], ["who", "quiet", "beside", "measured", "rate ratio", "burners: burn µs"])

    def test_sizes_and_times_are_in_their_units(self):
        self.assertEqual(report.number(("idle", "resident_bytes"), 31195136), "29.8 MiB")
        self.assertEqual(report.number(("wasm_bytes",), 307), "307 B")
        self.assertEqual(report.words(("modules", "first_call_us")), "modules: first call µs")
        self.assertEqual(report.number(("first_us",), 2826), "2826")
        self.assertEqual(report.number(("seconds",), 20.0), "20")
        self.assertEqual(report.number(("of_serve",), 1.0), "1.00")
        self.assertEqual(report.number(("fresh", "ratio"), 0.000634), "0.0006")

    def test_a_name_with_a_bar_does_not_split_its_cell(self):
        self.assertIn(r"a \| b", report.table([{("what",): "a | b"}]))


class Goals(unittest.TestCase):
    def test_a_goal_is_reached_at_its_figure_whichever_way_is_better(self):
        self.assertTrue(report.is_reached(goal(0.8)))
        self.assertFalse(report.is_reached(goal(0.79)))
        self.assertTrue(report.is_reached(goal(2.0, at_least=False, wanted=2.0)))
        self.assertFalse(report.is_reached(goal(2.1, at_least=False, wanted=2.0)))

    def test_the_overview_has_every_scenarios_goals_but_not_those_of_a_repeated_one(self):
        found = {"calls": measured(goals=[goal(0.734)]), "tail": measured(goals=[goal(1.5, at_least=False, wanted=2.0)]), "peers": measured(goals=[goal(0.1)])}
        self.assertEqual(rows(report.goals(found))[1:], [["calls", "of echo", "≥ 0.8", "0.734", "NO"], ["tail", "of echo", "≤ 2", "1.5", "yes"]])

    def test_a_machine_is_described_once(self):
        self.assertEqual(report.runs({"calls": measured(), "tail": measured()}).count("of one kind"), 1)


class Page(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "performance"
        self.found = {"calls": measured(cases=[case()])}
        report.keep("calls", self.found["calls"], self.folder)

    PAGE = "# P\n<!-- plot: calls -->\n<!-- /plot -->\nWords.\n<!-- table: calls -->\nold\n<!-- /table -->\n<!-- table: tail -->\nkept\n<!-- /table -->\n"

    def test_only_blocks_of_what_was_measured_are_rewritten_and_a_second_time_changes_nothing(self):
        page = report.render(self.PAGE, self.found, self.folder)
        self.assertNotIn("old", page)
        self.assertIn("| worker |", page)
        self.assertIn("Words.\n", page)
        self.assertIn("<!-- table: tail -->\nkept\n<!-- /table -->", page)
        self.assertEqual(report.render(page, self.found, self.folder), page)
        self.assertEqual(list(report.faults(page, self.found, self.folder)), [])

    def test_what_is_kept_is_read_again(self):
        self.assertEqual(report.measurements(self.folder), self.found)

    def test_a_figure_changed_by_hand_is_a_fault(self):
        page = report.render(self.PAGE, self.found, self.folder).replace("94982", "99999")
        self.assertEqual(list(report.faults(page, self.found, self.folder)), ["the table of calls is not what its measurement says"])

    def test_a_measurement_that_no_page_shows_is_a_fault(self):
        page = report.render(self.PAGE, self.found, self.folder)
        faults = list(report.faults(page, {**self.found, "many": measured()}, self.folder))
        self.assertEqual(faults, ["many.json has no table"])

    def test_pictures_are_shown_where_they_are_and_must_be_of_the_same_figures(self):
        report.keep_plot("calls.rates", "<svg/>", self.found["calls"], self.folder)
        report.keep_plot("callsigns", "<svg/>", {}, self.folder)
        page = report.render(self.PAGE, self.found, self.folder)
        self.assertIn("![calls: rates](performance/calls.rates.svg)", page)
        self.assertNotIn("callsigns", page)
        (self.folder / "callsigns.svg").unlink()
        self.assertEqual(list(report.faults(page, self.found, self.folder)), [])
        report.keep_plot("calls.rates", "<svg/>", {}, self.folder)
        self.assertEqual(list(report.faults(page, self.found, self.folder)), ["calls.rates.svg was drawn from other figures"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
