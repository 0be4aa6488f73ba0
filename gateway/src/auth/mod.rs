//! Who may ask what: bearer tokens with scopes, or, without tokens, the programs of this machine only.
//!
//! Never logs or repeats a token. Compares hashes, so that the time it takes says nothing of a token.

mod local;
mod tokens;

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, HeaderMap, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use wess_schemas::ErrorCode;

use tokens::Token;
pub use tokens::{Scope, TokenFile};

use crate::app::App;
use crate::problem::Problem;

/// What a route asks of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Anyone,
    /// Any valid token.
    AnyToken,
    /// A token with this scope.
    Scope(Scope),
}

/// How callers are told apart.
#[derive(Debug, Clone)]
pub enum Door {
    /// There are no tokens: we listen on loopback, and whoever reaches us there may do everything.
    Local,
    /// By the tokens of a file.
    Tokens(Arc<TokenFile>),
}

/// Whose token came with a request.
#[derive(Debug, Clone)]
pub struct Caller(Arc<str>);

impl Caller {
    /// The token's name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// What the caller of a request may do, for what its body asks beyond its route.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    everything: bool,
    scopes: HashSet<Scope>,
}

impl Grants {
    /// Refuses a caller that lacks a scope.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.everything || self.scopes.contains(&scope) {
            Ok(())
        } else {
            Err(missing(scope))
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Grants {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// Lets a request through, or refuses it. Goes in front of each route that is not for anyone.
pub async fn check(
    State((app, access)): State<(Arc<App>, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    let (caller, grants) = match admit(&app.door, access, request.headers()) {
        Ok(admitted) => admitted,
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(grants);
    let mut answer = next.run(request).await;
    if let Some(caller) = caller {
        answer.extensions_mut().insert(caller);
    }
    answer
}

fn admit(door: &Door, access: Access, headers: &HeaderMap) -> Result<(Option<Caller>, Grants), Problem> {
    match door {
        Door::Local => {
            local::check(headers)?;
            let grants = Grants {
                everything: true,
                scopes: HashSet::new(),
            };
            Ok((None, grants))
        }
        Door::Tokens(tokens) => {
            let token = identify(tokens, access, headers)?;
            let grants = Grants {
                everything: false,
                scopes: token.scopes,
            };
            Ok((Some(Caller(token.name)), grants))
        }
    }
}

fn identify(tokens: &TokenFile, access: Access, headers: &HeaderMap) -> Result<Token, Problem> {
    let Some(given) = headers.get(AUTHORIZATION) else {
        return Err(unauthorized("a bearer token is needed", r#"Bearer realm="wess""#));
    };
    let token = given.to_str().ok().and_then(bearer);
    let known = token.and_then(|token| tokens.find(token));
    let Some(known) = known else {
        let challenge = r#"Bearer realm="wess", error="invalid_token""#;
        return Err(unauthorized("the bearer token is not valid", challenge));
    };
    match access {
        Access::Scope(scope) if !known.scopes.contains(&scope) => Err(missing(scope)),
        Access::Anyone | Access::AnyToken | Access::Scope(_) => Ok(known),
    }
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn unauthorized(message: &str, challenge: &'static str) -> Problem {
    let challenge = HeaderValue::from_static(challenge);
    Problem::new(ErrorCode::Unauthorized, message).with_header(WWW_AUTHENTICATE, challenge)
}

fn missing(scope: Scope) -> Problem {
    let challenge = match scope {
        Scope::Invoke => r#"Bearer realm="wess", error="insufficient_scope", scope="invoke""#,
        Scope::Store => r#"Bearer realm="wess", error="insufficient_scope", scope="store""#,
        Scope::Admin => r#"Bearer realm="wess", error="insufficient_scope", scope="admin""#,
    };
    Problem::new(
        ErrorCode::Forbidden,
        format!("the token lacks the scope {}", scope.as_str()),
    )
    .with("scope", scope.as_str())
    .with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_what_follows_the_scheme() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for bad in ["", "Bearer", "Bearer ", "Basic abc", "Bearerabc"] {
            assert_eq!(bearer(bad), None, "{bad:?}");
        }
    }
}
