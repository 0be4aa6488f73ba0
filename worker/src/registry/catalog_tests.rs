//! What the mirror shows after changes in order, out of order, and after a replay.

use super::*;
use crate::guest::Metering;
use crate::registry::record::parse;
use crate::registry::record::tests::{head, head_change, version, version_change};
use wess_schemas::module::Abi;

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn digest_of(catalog: &Catalog, text: &str) -> Option<u8> {
    catalog
        .lookup(&reference(text))
        .map(|found| found.digest.as_bytes()[0])
}

/// `hello` with two versions, `stable` at the first.
fn catalog() -> Catalog {
    let catalog = Catalog::new();
    let mut head = head(&[1, 2]);
    head.tags.insert("stable".parse().unwrap(), 1);
    catalog.follow(1, Some(version_change("hello", 1, version(1, 11))));
    catalog.follow(2, Some(version_change("hello", 2, version(2, 22))));
    catalog.follow(3, Some(head_change("hello", 3, head)));
    catalog
}

fn gone(change: Change, revision: u64) -> Change {
    Change {
        revision,
        record: Record::Gone,
        ..change
    }
}

#[test]
fn each_form_of_reference_finds_its_version() {
    let catalog = catalog();
    let found: Vec<_> = [
        "hello",
        "hello@1",
        "hello@2",
        "hello@stable",
        "hello@3",
        "hello@beta",
        "other",
    ]
    .map(|text| digest_of(&catalog, text))
    .into();
    assert_eq!(found, [Some(22), Some(11), Some(22), Some(11), None, None, None]);
    let latest = catalog.lookup(&reference("hello")).unwrap();
    assert_eq!(
        catalog.lookup(&Reference::Id(latest.id.unwrap())),
        Some(latest.clone())
    );
    let by_digest = catalog.lookup(&Reference::Digest(latest.digest)).unwrap();
    assert_eq!(
        (&by_digest.name, by_digest.version, by_digest.digest),
        (&None, None, latest.digest)
    );
    assert_eq!(*catalog.revision().borrow(), 3);
}

#[test]
fn a_version_that_no_head_lists_is_not_there() {
    let catalog = Catalog::new();
    catalog.follow(1, Some(version_change("hello", 1, version(1, 11))));
    assert_eq!(digest_of(&catalog, "hello@1"), None);
    assert!(
        catalog
            .lookup(&Reference::Digest(version(1, 11).digest))
            .is_none()
    );
    catalog.follow(2, Some(head_change("hello", 2, head(&[1]))));
    assert_eq!(digest_of(&catalog, "hello@1"), Some(11));
}

#[test]
fn a_deleted_module_is_gone_by_every_reference() {
    let catalog = catalog();
    let latest = catalog.lookup(&reference("hello")).unwrap();
    catalog.follow(4, Some(gone(head_change("hello", 4, head(&[1])), 4)));
    for text in [
        "hello".into(),
        "hello@1".into(),
        latest.digest.to_string(),
        latest.id.unwrap().to_string(),
    ] {
        assert_eq!(digest_of(&catalog, &text), None, "{text}");
    }
    assert!(catalog.lock().modules.is_empty() && catalog.lock().holders.is_empty());
}

#[test]
fn bytes_that_two_modules_share_stay_until_both_are_gone() {
    let catalog = catalog();
    catalog.follow(4, Some(version_change("twin", 4, version(1, 22))));
    catalog.follow(5, Some(head_change("twin", 5, head(&[1]))));
    let digest = version(1, 22).digest;
    assert_eq!(catalog.holder(&digest).unwrap(), ("hello".parse().unwrap(), 2));
    catalog.follow(6, Some(gone(head_change("hello", 6, head(&[1])), 6)));
    assert!(catalog.lookup(&Reference::Digest(digest)).is_some());
    catalog.follow(7, Some(gone(head_change("twin", 7, head(&[1])), 7)));
    assert!(catalog.lookup(&Reference::Digest(digest)).is_none());
}

#[test]
fn what_is_learned_early_counts_at_once_but_not_as_followed() {
    let catalog = catalog();
    let head = catalog.listing(&"hello".parse().unwrap()).unwrap().head.clone();
    let newer = ModuleHead {
        versions: vec![1, 2, 3],
        ..head.clone()
    };
    catalog.learn(version_change("hello", 8, version(3, 33)));
    catalog.learn(head_change("hello", 9, newer));
    assert_eq!(
        (digest_of(&catalog, "hello"), *catalog.revision().borrow()),
        (Some(33), 3)
    );
    catalog.follow(5, Some(head_change("hello", 5, head)));
    assert_eq!(
        (digest_of(&catalog, "hello"), *catalog.revision().borrow()),
        (Some(33), 5)
    );
}

#[test]
fn an_early_deletion_is_not_undone_by_older_changes_that_follow() {
    let catalog = catalog();
    let head = catalog.listing(&"hello".parse().unwrap()).unwrap().head.clone();
    catalog.learn(gone(head_change("hello", 9, head.clone()), 9));
    catalog.follow(5, Some(head_change("hello", 5, head.clone())));
    assert_eq!(digest_of(&catalog, "hello"), None);
    catalog.follow(9, Some(gone(head_change("hello", 9, head), 9)));
    assert!(catalog.lock().modules.is_empty());
}

#[test]
fn a_module_stored_anew_never_shows_the_bytes_of_the_one_deleted_before() {
    let catalog = catalog();
    catalog.learn(head_change("hello", 9, head(&[1])));
    assert_eq!(digest_of(&catalog, "hello@1"), None);
    catalog.learn(version_change("hello", 8, version(1, 99)));
    assert_eq!(digest_of(&catalog, "hello@1"), Some(99));
}

#[test]
fn a_replay_removes_what_is_not_in_it_even_at_lower_revisions() {
    let catalog = catalog();
    catalog.replace(
        2,
        vec![
            version_change("new", 1, version(1, 77)),
            head_change("new", 2, head(&[1])),
        ],
    );
    assert_eq!(
        (digest_of(&catalog, "hello"), digest_of(&catalog, "new")),
        (None, Some(77))
    );
    assert_eq!((catalog.len(), *catalog.revision().borrow()), (1, 2));
    assert!(
        catalog
            .lookup(&Reference::Digest(version(1, 11).digest))
            .is_none()
    );
}

#[test]
fn a_replay_of_the_same_keeps_every_resolved_version() {
    let catalog = catalog();
    let before = catalog.lookup(&reference("hello")).unwrap();
    let (revision, records) = catalog.snapshot();
    catalog.replace(
        revision,
        records.iter().map(|record| parse(record).unwrap()).collect(),
    );
    assert!(Arc::ptr_eq(
        &before,
        &catalog.lookup(&reference("hello")).unwrap()
    ));
}

#[test]
fn pages_are_in_order_and_within_their_prefix() {
    let catalog = Catalog::new();
    for (at, name) in ["b", "a-2", "a-1", "ab", "a"].iter().enumerate() {
        let revision = 2 * at as u64 + 1;
        catalog.follow(revision, Some(version_change(name, revision, version(1, 1))));
        catalog.follow(revision + 1, Some(head_change(name, revision + 1, head(&[1]))));
    }
    let page = |after: Option<&str>, prefix: &str, limit: usize| {
        let after: Option<ModuleName> = after.map(|after| after.parse().unwrap());
        catalog.page(after.as_ref(), prefix, limit, |listing| {
            Some(listing.name.to_string())
        })
    };
    assert_eq!(page(None, "", 9), ["a", "a-1", "a-2", "ab", "b"]);
    assert_eq!(page(Some("a-1"), "", 2), ["a-2", "ab"]);
    assert_eq!(page(None, "a-", 9), ["a-1", "a-2"]);
    assert_eq!(page(Some("a"), "a-", 9), ["a-1", "a-2"]);
    assert_eq!(page(Some("a-2"), "a-", 9), Vec::<String>::new());
}

#[test]
fn a_route_is_claimed_by_whoever_else_has_it_now() {
    let catalog = Catalog::new();
    let route = "a.example.com".to_owned();
    let mut owner = head(&[1]);
    owner.routes.insert(route.clone());
    catalog.learn(head_change("owner", 1, owner.clone()));
    let claimed = |name: &str| catalog.claimed([&route].into_iter(), &name.parse().unwrap());
    assert_eq!(claimed("other"), Some(("owner".parse().unwrap(), route.as_str())));
    assert_eq!(claimed("owner"), None);
    owner.routes.clear();
    catalog.learn(head_change("owner", 2, owner));
    assert_eq!(claimed("other"), None);
}

#[test]
fn what_the_newest_versions_need_is_told_once_each_and_chains_need_nothing() {
    let catalog = catalog();
    let of = |abi, number| ModuleVersion {
        abi,
        ..version(number, 30)
    };
    let plain = Needs {
        metering: Metering::Off,
        is_component: false,
    };
    for (name, abi) in [("chain", Abi::Chain), ("plugin", Abi::Plugin)] {
        catalog.follow(4, Some(version_change(name, 4, of(abi, 1))));
        catalog.follow(5, Some(head_change(name, 5, head(&[1]))));
    }
    assert_eq!(catalog.needs(), HashSet::from([plain]));
    catalog.follow(6, Some(version_change("http", 6, of(Abi::Http, 1))));
    catalog.follow(7, Some(head_change("http", 7, head(&[1]))));
    let served = Needs {
        metering: Metering::Checked,
        is_component: true,
    };
    assert_eq!(catalog.needs(), HashSet::from([plain, served]));
}
