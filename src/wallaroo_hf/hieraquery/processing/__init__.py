"""Pictures, prompts and chats to tensors, and what was made back to pictures and words."""
