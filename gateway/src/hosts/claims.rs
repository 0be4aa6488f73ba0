//! What modules claim, by their heads, and whose a route is where several claim it: the oldest module's.
//!
//! Holds [`MAX_CLAIMS`] routes at most: beyond that the youngest modules have none until all heads are read
//! again.

use std::collections::{BTreeSet, HashMap};

use wess_schemas::module::ModuleHead;
use wess_schemas::subject::ModuleKey;
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{ModuleId, ModuleName, route};
use wess_service::feed::RawRecord;

use super::Routes;

/// Some megabytes of names, which are put in order at each change.
const MAX_CLAIMS: usize = 10_000;

/// Every module that claims a route.
#[derive(Debug, Default)]
pub struct Claims {
    modules: HashMap<ModuleName, Claim>,
    routes: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Claim {
    /// Every gateway puts modules into the same order by this.
    age: (Timestamp, ModuleId),
    routes: BTreeSet<String>,
}

impl Claims {
    /// Takes a head as it is now. Says whether any route may be another module's since.
    pub fn take(&mut self, record: &RawRecord) -> bool {
        let Ok(ModuleKey::Head(_, name)) = record.key.parse() else {
            return false;
        };
        let head = match &record.value {
            Some(value) => match serde_json::from_slice::<ModuleHead>(value) {
                Ok(head) => Some(head),
                Err(error) => {
                    tracing::warn!(key = record.key, %error, "skipping a module record");
                    return false;
                }
            },
            None => None,
        };
        let claim = head.filter(|head| !head.routes.is_empty()).map(|head| Claim {
            age: (head.created, head.id),
            routes: head.routes,
        });
        if self.modules.get(&name) == claim.as_ref() {
            return false;
        }
        self.set(name, claim);
        true
    }

    /// Whose each route is, of those that modules may have.
    pub fn table(&self, allowed: &[String]) -> Routes {
        let may_be = |claimed: &&String| allowed.iter().any(|wider| route::is_within(claimed, wider));
        let mut claims: Vec<_> = self.modules.iter().collect();
        claims.sort_unstable_by_key(|(_, claim)| claim.age);
        let mut table = Routes::with_capacity(self.routes);
        for (name, claim) in claims {
            for claimed in claim.routes.iter().filter(may_be) {
                table
                    .entry(claimed.as_str().into())
                    .or_insert_with(|| name.clone());
            }
        }
        table
    }

    fn set(&mut self, name: ModuleName, claim: Option<Claim>) {
        self.forget(&name);
        if let Some(claim) = claim {
            self.routes += claim.routes.len();
            self.modules.insert(name, claim);
        }
        while self.routes > MAX_CLAIMS {
            let youngest = self.modules.iter().max_by_key(|(_, claim)| claim.age);
            let Some(youngest) = youngest.map(|(name, _)| name.clone()) else {
                return;
            };
            tracing::warn!(module = %youngest, "modules have more than {MAX_CLAIMS} routes: those of the youngest are not served");
            self.forget(&youngest);
        }
    }

    fn forget(&mut self, name: &ModuleName) {
        if let Some(claim) = self.modules.remove(name) {
            self.routes -= claim.routes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, head: Option<&ModuleHead>) -> RawRecord {
        RawRecord {
            key: format!("default.{name}"),
            revision: 1,
            value: head.map(|head| serde_json::to_vec(head).unwrap().into()),
        }
    }

    fn head(routes: &[&str]) -> ModuleHead {
        let json = serde_json::json!({
            "id": ModuleId::generate(), "tags": {}, "versions": [1], "routes": routes,
            "created": Timestamp::now(), "updated": Timestamp::now(),
        });
        serde_json::from_value(json).unwrap()
    }

    fn everywhere() -> [String; 1] {
        ["*.com".into()]
    }

    fn holder(claims: &Claims, route: &str) -> Option<String> {
        claims
            .table(&everywhere())
            .get(route)
            .map(|name| name.to_string())
    }

    #[test]
    fn the_oldest_module_has_a_route_in_whatever_order_heads_come() {
        let (old, young) = (head(&["a.com"]), head(&["a.com", "b.com"]));
        assert!((old.created, old.id) < (young.created, young.id));
        for order in [["old", "young"], ["young", "old"]] {
            let mut claims = Claims::default();
            for name in order {
                let head = if name == "old" { &old } else { &young };
                assert!(claims.take(&record(name, Some(head))));
                assert!(!claims.take(&record(name, Some(head))));
            }
            assert_eq!(holder(&claims, "a.com").as_deref(), Some("old"));
            assert_eq!(holder(&claims, "b.com").as_deref(), Some("young"));
            assert!(claims.take(&record("old", None)));
            assert_eq!(holder(&claims, "a.com").as_deref(), Some("young"));
            assert!(claims.take(&record("young", Some(&head(&[])))));
            assert!(claims.table(&everywhere()).is_empty() && claims.routes == 0);
        }
    }

    #[test]
    fn a_host_that_modules_may_not_have_is_nobodys() {
        let mut claims = Claims::default();
        claims.take(&record("old", Some(&head(&["a.com", "a.org"]))));
        let table = claims.table(&["a.org".into()]);
        assert_eq!(table.keys().map(|route| &**route).collect::<Vec<_>>(), ["a.org"]);
        assert!(claims.table(&[]).is_empty());
    }

    #[test]
    fn what_is_no_head_changes_nothing() {
        let mut claims = Claims::default();
        claims.take(&record("old", Some(&head(&["a.com"]))));
        let mut garbage = record("old", None);
        garbage.value = Some("{}".into());
        assert!(!claims.take(&garbage));
        garbage.key = "default.old.v1".into();
        assert!(!claims.take(&garbage));
        assert!(!claims.take(&record("other", None)));
        assert_eq!(holder(&claims, "a.com").as_deref(), Some("old"));
    }

    #[test]
    fn beyond_the_most_routes_the_youngest_modules_have_none() {
        let routes: Vec<String> = (0..MAX_CLAIMS).map(|at| format!("a{at}.com")).collect();
        let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
        let (old, young) = (head(&routes), head(&["b.com"]));
        for order in [
            [("old", &old), ("young", &young)],
            [("young", &young), ("old", &old)],
        ] {
            let mut claims = Claims::default();
            for (name, head) in order {
                claims.take(&record(name, Some(head)));
            }
            assert_eq!(claims.table(&everywhere()).len(), MAX_CLAIMS);
            assert_eq!(holder(&claims, "b.com"), None);
        }
    }
}
