"""The feed: a store's events for consumers that come, go, lag and resume. Reading is synchronous; waiting is Trio's."""

from supervm_rt.store.feed.events import BEGINNING, NOW, FeedEvent, Last
from supervm_rt.store.feed.feed import Feed, open_feed
from supervm_rt.store.feed.retention import Kept, Retention
from supervm_rt.store.feed.subscription import Subscription, SubscriptionStatistics

__all__ = [
    "BEGINNING",
    "NOW",
    "Feed",
    "FeedEvent",
    "Kept",
    "Last",
    "Retention",
    "Subscription",
    "SubscriptionStatistics",
    "open_feed",
]
