//! Jobs and dead letters by the command line against a whole `wess up`: what a user types, sees, and finds again later.

use serde_json::Value;

use crate::wess::{DOORS, Door, Wess, code, stderr, stdout};

/// Words of a command line.
fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

impl Wess {
    fn prints(&self, door: Door, line: &str) -> String {
        self.must(door, &words(line))
    }

    /// A command that ends with a code, prints nothing, and says something.
    #[track_caller]
    fn fails(&self, door: Door, line: &str, exit: i32, said: &str) {
        let output = self.ask(door, &words(line));
        assert_eq!(
            (code(&output), stdout(&output).as_str()),
            (exit, ""),
            "{door:?} {line}"
        );
        assert!(stderr(&output).contains(said), "{line}: {}", stderr(&output));
    }

    /// The ids that a listing shows, and what it says of each.
    fn listed(&self, door: Door, line: &str) -> Vec<(String, String)> {
        let found = self.json(door, &words(line));
        let jobs = found["jobs"].as_array().or(found["letters"].as_array()).unwrap();
        let text = |job: &Value, name: &str| job[name].as_str().unwrap_or_default().to_owned();
        jobs.iter()
            .map(|job| (text(job, "job_id"), text(job, "state") + &text(job, "reason")))
            .collect()
    }
}

fn listed(entries: &[(&str, &str)]) -> Vec<(String, String)> {
    entries
        .iter()
        .map(|(id, state)| ((*id).to_owned(), (*state).to_owned()))
        .collect()
}

#[test]
fn a_job_is_submitted_waited_for_shown_and_listed_through_either_door() {
    let wess = Wess::up();
    wess.store(Door::Nats, "upper", "upper");
    for (door, key, other) in [(Door::Nats, "a", Door::Http), (Door::Http, "b", Door::Nats)] {
        let line = format!("jobs submit upper hello --key {key}");
        assert_eq!(wess.prints(door, &line), format!("{key}\n"));
        assert_eq!(wess.prints(door, &format!("jobs wait {key}")), "HELLO");
        assert_eq!(
            wess.prints(other, &format!("jobs wait {key} --timeout 1ms")),
            "HELLO"
        );
        let shown = wess.prints(other, &format!("jobs get {key}"));
        let begins = format!("job        {key}\nstate      succeeded\n");
        assert!(shown.starts_with(&begins), "{shown}");
        assert_eq!(
            wess.prints(other, &line),
            format!("{key}\n"),
            "the same job again"
        );
        let changed = format!("jobs submit upper bye --key {key}");
        wess.fails(other, &changed, 73, "(conflict)");
        assert_eq!(wess.prints(door, "jobs submit upper hello --wait"), "HELLO");
        let chain = "jobs submit --chain upper upper --input hello --wait";
        assert_eq!(wess.prints(door, chain), "HELLO");
        wess.fails(door, "jobs submit nobody hello", 66, "(module_not_found)");
        wess.fails(door, "jobs get nobody", 66, "(job_not_found)");
    }
    for door in DOORS {
        let keyed: Vec<_> = wess.listed(door, "jobs ls --kind invoke --module upper");
        assert_eq!(keyed.len(), 4, "{keyed:?}");
        assert_eq!(keyed[2..], listed(&[("a", "succeeded"), ("b", "succeeded")]));
        assert_eq!(wess.listed(door, "jobs ls --kind chain --all").len(), 2);
        let table = wess.prints(door, "jobs ls --after a");
        let line: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(line[..5], ["b", "succeeded", "invoke", "upper", "1"]);
        wess.fails(door, "jobs ls --state failed", 0, "there are no such jobs");
    }
}

#[test]
fn a_job_that_fails_is_told_like_a_call_and_one_that_is_given_up_lies_among_the_dead() {
    let wess = Wess::up();
    wess.store(Door::Nats, "traps", "traps");
    for (door, key) in [(Door::Nats, "a"), (Door::Http, "b")] {
        let fails = format!("jobs submit traps.unreachable --key {key}-1 --wait");
        wess.fails(door, &fails, 1, "(guest_trapped)");
        wess.fails(door, &format!("jobs wait {key}-1"), 1, "(guest_trapped)");
        wess.fails(door, "dead ls", 0, "no job was given up");

        let dies = format!("jobs submit traps.unreachable --key {key}-2 --retry 2 --backoff 10ms --wait");
        wess.fails(door, &dies, 1, "(guest_trapped)");
        let letter = wess.prints(door, &format!("dead get {key}-2"));
        assert!(letter.contains("\nreason      attempts_exhausted\n"), "{letter}");
        let id = format!("{key}-2");
        let there = listed(&[(&id, "attempts_exhausted")]);
        for any in DOORS {
            assert_eq!(wess.listed(any, "dead ls"), there);
        }
        let again = wess.prints(door, &format!("dead redrive {id}"));
        assert_eq!(again, format!("{id} is submitted again\n"));
        wess.fails(door, &format!("jobs wait {id}"), 1, "(guest_trapped)");
        assert_eq!(wess.listed(door, "dead ls"), there, "it died again");
        assert_eq!(wess.prints(door, &format!("dead purge {id}")), "removed 1\n");
        wess.fails(door, &format!("dead get {id}"), 66, "(job_not_found)");
    }
    let failed = listed(&[("a-1", "failed"), ("b-1", "failed")]);
    assert_eq!(wess.listed(Door::Http, "jobs ls --state failed"), failed);
    let dead = listed(&[("a-2", "dead"), ("b-2", "dead")]);
    assert_eq!(wess.listed(Door::Nats, "jobs ls --state dead"), dead);
}

#[test]
fn a_job_that_waits_is_cancelled_or_outlasts_a_restart() {
    let mut wess = Wess::up();
    wess.store(Door::Nats, "upper", "upper");
    for (door, key) in [(Door::Nats, "a"), (Door::Http, "b")] {
        wess.prints(door, &format!("jobs submit upper hello --key {key} --delay 1h"));
        assert_eq!(
            wess.listed(door, "jobs ls --state queued"),
            listed(&[(key, "queued")])
        );
        let patience = format!("jobs wait {key} --timeout 50ms");
        wess.fails(door, &patience, 75, "is still queued");
        let said = wess.prints(door, &format!("jobs cancel {key}"));
        assert_eq!(said, format!("{key} is cancelled\n"));
        wess.fails(door, &format!("jobs wait {key}"), 1, "(cancelled)");
        wess.fails(door, "jobs cancel nobody", 66, "(job_not_found)");
    }
    wess.prints(Door::Nats, "jobs submit upper hello --key later --delay 2s");
    wess.prints(Door::Http, "jobs submit upper hello --key done --wait");
    assert_eq!(wess.process.stop().code(), Some(0));
    let again = Wess::up_in(wess.folder, &["--nats-listen", "127.0.0.1:0"]);
    for door in DOORS {
        assert_eq!(again.prints(door, "jobs wait later"), "HELLO");
        let all = [
            ("a", "cancelled"),
            ("b", "cancelled"),
            ("done", "succeeded"),
            ("later", "succeeded"),
        ];
        assert_eq!(again.listed(door, "jobs ls"), listed(&all));
    }
}
