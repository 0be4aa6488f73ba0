//! Inboxes of one connection, as many as there are exchanges, under one subscription: the server hears nothing of each.
//!
//! Invariant: an inbox gets every message in order, or comes to its end; one that is dropped takes nothing more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{Client, Message, Subject, SubscribeError, Subscriber};
use futures_util::StreamExt;
use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Messages of one inbox that nobody has looked at: more than a window's worth of frames, unless they are tiny.
const MESSAGES: usize = 65_536;

/// Where exchanges of one connection listen. Cheap to clone; the subscription ends with the last clone.
#[derive(Debug, Clone)]
pub struct Inboxes {
    client: Client,
    shared: Arc<OnceCell<Shared>>,
}

/// One subscription for all of them, made when the first one opens.
#[derive(Debug)]
struct Shared {
    base: String,
    open: Open,
    /// Ended when this is dropped.
    _passing_on: JoinSet<()>,
}

/// Who listens, by the last part of the subject.
type Open = Arc<Mutex<HashMap<u64, mpsc::Sender<Message>>>>;

/// One of them.
#[derive(Debug)]
pub struct Inbox {
    subject: Subject,
    messages: mpsc::Receiver<Message>,
    token: u64,
    open: Open,
}

impl Inboxes {
    /// Inboxes of `client`. Nothing is subscribed yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            shared: Arc::default(),
        }
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A new one.
    pub async fn open(&self) -> Result<Inbox, SubscribeError> {
        let shared = self
            .shared
            .get_or_try_init(|| Shared::subscribe(&self.client))
            .await?;
        // Who knows one inbox must not know another's.
        let (token, _) = Uuid::new_v4().as_u64_pair();
        let (sender, messages) = mpsc::channel(MESSAGES);
        lock(&shared.open).insert(token, sender);
        Ok(Inbox {
            subject: format!("{}{token}", shared.base).into(),
            messages,
            token,
            open: Arc::clone(&shared.open),
        })
    }
}

impl Shared {
    async fn subscribe(client: &Client) -> Result<Self, SubscribeError> {
        let base = format!("{}.", client.new_inbox());
        let subscription = client.subscribe(format!("{base}*")).await?;
        let open = Open::default();
        let mut passing_on = JoinSet::new();
        passing_on.spawn(pass_on(subscription, base.len(), Arc::clone(&open)));
        Ok(Self {
            base,
            open,
            _passing_on: passing_on,
        })
    }
}

async fn pass_on(mut subscription: Subscriber, base_bytes: usize, open: Open) {
    while let Some(message) = subscription.next().await {
        let token = message
            .subject
            .get(base_bytes..)
            .and_then(|token| token.parse().ok());
        let Some(token) = token else { continue };
        let mut open = lock(&open);
        // Who has gone is missed by nobody; who has not kept up must not go on as if nothing had been lost.
        if let Some(inbox) = open.get(&token)
            && inbox.try_send(message).is_err()
        {
            open.remove(&token);
        }
    }
    lock(&open).clear();
}

/// Nothing that can panic is done under this lock.
fn lock(open: &Open) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Message>>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// Where it is.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The next message; nothing once the connection has ended, or one was lost. Nothing is lost when this is dropped before.
    pub async fn next(&mut self) -> Option<Message> {
        self.messages.recv().await
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        lock(&self.open).remove(&self.token);
    }
}
