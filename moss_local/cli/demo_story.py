"""What is said in the demo: one customer, three channels, one thread."""

from __future__ import annotations

SESSION = "conv-123"

Turn = tuple[str, str, str]
"""Id, speaker, text."""

CALL: list[Turn] = [
    ("turn-01", "customer", "Hi, I was charged twice for my order, $49.99 both times."),
    ("turn-02", "voice agent", "I am sorry about that. Can you give me the order number?"),
    ("turn-03", "customer", "It is 7730-A, from last Tuesday. The headphones."),
    ("turn-04", "voice agent", "I see it: two charges of $49.99 on the card ending in 4471."),
    ("turn-05", "customer", "I only ordered once. The page froze and I pressed the button again."),
    ("turn-06", "voice agent", "I have refunded the second charge; it takes 3-5 business days."),
    ("turn-07", "customer", "Fine. Please send the confirmation to my new e-mail address."),
    ("summary", "voice agent", "Duplicate charge on order 7730-A; refund of $49.99 started."),
]

QUESTION = "when does the customer get the money back?"

CHAT: list[Turn] = [
    ("turn-08", "customer", "Me again, now on chat. Any news about my refund?"),
    ("turn-09", "chat agent", "It was started on your call and arrives within 3-5 business days."),
]

OFFLINE_QUESTION = "which card was charged?"

CHAT_OFFLINE: list[Turn] = [
    ("turn-10", "customer", "My bank says nothing is pending on the card ending in 4471."),
    ("turn-11", "chat agent", "Banks often show a refund only once it has been booked."),
    ("summary", "chat agent", "Customer asks about the refund; bank shows nothing yet."),
]

VOICE_MEANWHILE: list[Turn] = [
    ("turn-12", "customer", "I am calling back: can you send me the refund reference?"),
    ("turn-13", "voice agent", "Of course, it is RF-20417. You will get it by text message."),
    ("summary", "voice agent", "Refund RF-20417 of $49.99 sent; reference given to customer."),
]

EMAIL_QUESTION = "what is the reference number of the refund?"

EMAIL: list[Turn] = [
    ("turn-14", "e-mail agent", "Dear customer, your refund RF-20417 was booked this morning."),
]
