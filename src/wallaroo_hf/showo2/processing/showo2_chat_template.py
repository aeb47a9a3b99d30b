"""The chat template of Show-o2: the layout of its last stages of training, in Jinja."""

from ...common.chat_form import IMAGE_BLOCK, SYSTEM_PROMPT, VIDEO_BLOCK

__all__ = ["CHAT_TEMPLATE"]

# What is shown in a question stands on a line of its own, as in the training data; what is drawn in an answer does not.
CHAT_TEMPLATE = (
    "{%- if not messages or messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\\n" + SYSTEM_PROMPT + "<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['content'] is string %}"
    "{{- message['content'] }}"
    "{%- else %}"
    "{%- for part in message['content'] %}"
    "{%- if part['type'] in ('image', 'video') %}"
    "{{- '" + IMAGE_BLOCK + "' if part['type'] == 'image' else '" + VIDEO_BLOCK + "' }}"
    "{%- if message['role'] != 'assistant' and not loop.last %}{{- '\\n' }}{%- endif %}"
    "{%- elif 'text' in part %}"
    "{{- part['text'] }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- endif %}"
)
