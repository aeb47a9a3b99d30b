"""The checks of transformers that are not made here, each with its reason."""

import pytest

from .generation_checks import GenerationChecks, WritingChecks
from .model_checks import EmbeddingChecks, ModelChecks, StorageChecks, TracingChecks

# Of any model
ANYWHERE = {
    "test_all_tensors_are_parameter_or_buffer": "of hidden states of modules that we inherit unchanged",
    "test_can_use_safetensors": "safetensors are the only files that are written; see test_save_load",
    "test_bc_torch_dtype": "the old name is transformers' own; loading by `dtype` is in test_keep_in_fp32_modules",
    "test_cpu_offload": "tests/modeling/test_low_memory.py, with every part of the model",
    "test_disk_offload_bin": "no .bin files are written or read",
    "test_disk_offload_safetensors": "tests/modeling/test_low_memory.py",
    "test_feed_forward_chunking": "no such setting in Qwen2.5-VL",
    "test_flash_attn_2_inference_equivalence": "needs a GPU; so do all checks of flash attention",
    "test_flex_attention_with_grads": "needs a GPU",
    "test_model_is_small": "the size of test models has no effect outside transformers' own CI",
    "test_model_parallelism": "needs several GPUs; device maps on one are in tests/modeling/test_low_memory.py",
    "test_multi_gpu_data_parallel_forward": "needs several GPUs; several processes: tests/training/test_distributed.py",
    "test_pipeline_feature_extraction": "the pipelines of our tasks are in tests/pipelines",
    "test_problem_types": "no sequence classification",
    "test_resize_position_vector_embeddings": "positions are rotary, without a table",
    "test_reverse_loading_mapping": "weights are saved under the names that they are loaded by",
    "test_sdpa_can_dispatch_composite_models": "one attention is chosen for all parts, as in Qwen2.5-VL",
    "test_torch_compile_for_training": "losses are computed at labels only, and how many there are is a matter of data",
    "test_tp_plan_matches_params": "the plan is Qwen2.5-VL's; image parts are on every device",
}
# Of drawing alone; each is refused with a sentence, see tests/generation/test_refusals.py
DRAWING = {
    "test_beam_search_generate": "codes are decided in pairs of guidance branches, which beams would part",
    "test_beam_search_generate_dict_outputs_use_cache": "as test_beam_search_generate",
    "test_beam_sample_generate": "as test_beam_search_generate",
    "test_greedy_generate_without_cache": "drawing needs its cache",
    "test_assisted_decoding_matches_greedy_search": "assistants draft text; images have windows (docs/windows.md)",
    "test_assisted_decoding_sample": "as test_assisted_decoding_matches_greedy_search",
    "test_prompt_lookup_decoding_matches_greedy_search": "as test_assisted_decoding_matches_greedy_search",
    "test_generate_from_inputs_embeds": "size, task and images are read off the ids",
    "test_generate_from_inputs_embeds_with_static_cache": "as test_generate_from_inputs_embeds",
    "test_generate_from_inputs_embeds_beams": "as test_generate_from_inputs_embeds",
    "test_generate_continue_from_past_key_values": "images are drawn whole; stopped ones: tests/generation/test_session.py",
    "test_inputs_embeds_matches_input_ids": "with `image_task`, in test_stock_arguments.py",
    "test_generate_methods_with_logits_to_keep": "only the last position is ever scored",
    "test_prepare_inputs_for_generation_kwargs_forwards": "drawing prepares its steps itself",
    "test_chunked_prefill": "prompts of drawings are short",
    "test_stop_strings": "there is no text to search",
    "test_generation_config_of_ones_own": "its entries are about text; those about images have names of their own",
}


@pytest.mark.parametrize(
    ("reasons", "checks"),
    [
        (ANYWHERE, (ModelChecks, EmbeddingChecks, TracingChecks, WritingChecks)),
        (DRAWING, (ModelChecks, TracingChecks, GenerationChecks)),
    ],
)
def test_the_list_is_of_checks_that_are_not_made(reasons, checks):
    made = {name for check in checks for name in dir(check) if name.startswith("test_")}
    assert not made & reasons.keys() and all(reasons.values())
    assert {name for name in dir(StorageChecks) if name.startswith("test_")} < made


def test_what_writing_checks_and_drawing_does_not_is_on_the_list():
    of_text = {*dir(WritingChecks), *dir(EmbeddingChecks)} - set(dir(GenerationChecks))
    assert {name for name in of_text if name.startswith("test_")} == DRAWING.keys()
