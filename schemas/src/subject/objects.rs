//! Where guests' objects lie in the object store of a tenant: what they are under `M`, their bytes under `C`, each module's
//! apart from all others'.
//!
//! A container and an object are one token each, so that all objects of a container are one pattern.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;

use crate::id::{ModuleName, Tenant};

/// Object store of a tenant's guests.
pub fn objects_bucket(tenant: &Tenant) -> String {
    format!("wess-objects-{tenant}")
}

/// Subjects of one module's objects.
#[derive(Debug, Clone)]
pub struct ObjectSubjects {
    bucket: String,
    module: ModuleName,
}

impl ObjectSubjects {
    /// Those of a tenant's module.
    pub fn new(tenant: &Tenant, module: ModuleName) -> Self {
        Self {
            bucket: objects_bucket(tenant),
            module,
        }
    }

    /// The object store that they are in.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// That there is a container.
    pub fn container(&self, container: &str) -> String {
        format!("$O.{}.M.{}.{}", self.bucket, self.module, token(container))
    }

    /// What an object is.
    pub fn object(&self, container: &str, object: &str) -> String {
        format!("{}.{}", self.container(container), token(object))
    }

    /// Every object of a container.
    pub fn objects(&self, container: &str) -> String {
        format!("{}.*", self.container(container))
    }

    /// One piece of what an upload has brought, which must be of letters and digits.
    pub fn chunk(&self, upload: &str, index: u64) -> String {
        format!("$O.{}.C.{}.{upload}.{index}", self.bucket, self.module)
    }

    /// All of them.
    pub fn chunks(&self, upload: &str) -> String {
        format!("$O.{}.C.{}.{upload}.*", self.bucket, self.module)
    }
}

/// The object's name in the subject of what it is.
pub fn object_name(subject: &str) -> Option<String> {
    let (_, encoded) = subject.rsplit_once(".=")?;
    String::from_utf8(BASE64_URL.decode(encoded).ok()?).ok()
}

/// A name in a form that any text, even none, may take.
fn token(name: &str) -> String {
    format!("={}", BASE64_URL.encode(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn objects_never_leave_their_module_and_container(container in "\\PC{0,40}", object in any::<String>()) {
            let subjects = ObjectSubjects::new(&Tenant::default(), "resize".parse().unwrap());
            let built = subjects.object(&container, &object);
            prop_assert_eq!(built.split('.').count(), 6);
            let within = subjects.objects(&container);
            prop_assert!(built.starts_with(within.strip_suffix('*').unwrap()));
            prop_assert!(built.starts_with("$O.wess-objects-default.M.resize.="));
            prop_assert_eq!(object_name(&built), Some(object));
        }
    }

    #[test]
    fn pieces_of_an_upload_are_one_pattern() {
        let subjects = ObjectSubjects::new(&Tenant::default(), "resize".parse().unwrap());
        assert_eq!(
            subjects.chunk("ab12", 7),
            "$O.wess-objects-default.C.resize.ab12.7"
        );
        assert_eq!(subjects.chunks("ab12"), "$O.wess-objects-default.C.resize.ab12.*");
    }
}
