"""What goes wrong in diffusers' pipeline and is right in ours, each shown on both."""

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler

PAIR = ["a cat", "a very long description of a dog in the rain"]


def noise(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def each(ours, theirs):
    """Run the same on both pipelines."""
    return lambda run: (run(ours), run(theirs))


def test_pictures_of_one_prompt_do_not_see_the_mask_of_another(each, draw, assert_same):
    latents = noise(1, 4, 8, 8).repeat(4, 1, 1, 1)
    alone = noise(1, 4, 8, 8).repeat(2, 1, 1, 1)

    def differences(pipeline):
        together = draw(pipeline, PAIR, num_images_per_prompt=2, latents=latents)
        single = draw(pipeline, PAIR, latents=alone)
        return (together - single.repeat_interleave(2, dim=0)).abs().max()

    right, wrong = each(differences)
    assert right < 1e-4
    assert wrong > 1e-2


def test_features_are_repeated_for_each_picture(ours, theirs, draw, assert_same):
    def arguments(pipeline):
        names = ["prompt_embeds", "prompt_attention_mask"]
        names += [f"negative_{name}" for name in names]
        return dict(zip(names, pipeline.encode_prompt(PAIR), strict=True))

    from_text = draw(ours, PAIR, num_images_per_prompt=2)
    from_features = draw(ours, None, num_images_per_prompt=2, **arguments(ours))
    assert_same(from_features, from_text)
    with pytest.raises(RuntimeError):
        draw(theirs, None, num_images_per_prompt=2, **arguments(theirs))


def test_a_prompt_goes_with_features_of_a_negative_prompt(ours, theirs, draw, assert_same):
    _, _, embeds, mask = ours.encode_prompt("a cat", negative_prompt="a dog that is rather long")
    features = {"negative_prompt_embeds": embeds, "negative_prompt_attention_mask": mask}
    from_text = draw(ours, "a cat", negative_prompt="a dog that is rather long")
    assert_same(draw(ours, "a cat", **features), from_text)
    with pytest.raises(ValueError, match="Cannot forward both"):
        draw(theirs, "a cat", **features)


def test_prompts_are_cut_at_the_length_that_is_asked_for(each, draw):
    long = "a cat" * 20
    right, wrong = each(
        lambda pipeline: torch.equal(
            draw(pipeline, long, max_sequence_length=16), draw(pipeline, long)
        )
    )
    assert not right
    assert wrong


def test_a_negative_prompt_longer_than_the_prompt_is_read_to_its_end(each, draw):
    right, wrong = each(
        lambda pipeline: torch.equal(
            draw(pipeline, "a cat", negative_prompt="a gray and blurred dog"),
            draw(pipeline, "a cat", negative_prompt="a gray and blurred hog"),
        )
    )
    assert not right
    assert wrong


def test_a_negative_prompt_is_cleaned_as_the_prompt_is(each, draw):
    right, wrong = each(
        lambda pipeline: torch.equal(
            draw(pipeline, "a large cat", negative_prompt="A (DOG)"),
            draw(pipeline, "a large cat", negative_prompt="a dog"),
        )
    )
    assert right
    assert not wrong


def test_a_chinese_prompt_is_read(each, draw):
    right, wrong = each(lambda p: torch.equal(draw(p, "一只猫在树上"), draw(p, "")))
    assert not right
    assert wrong


def test_text_is_left_alone_when_it_is_not_to_be_cleaned(each, draw):
    right, wrong = each(
        lambda pipeline: torch.equal(
            draw(pipeline, "A Cat", clean_caption=False),
            draw(pipeline, "a cat", clean_caption=False),
        )
    )
    assert not right
    assert wrong


def test_a_callback_changes_guidance_from_the_next_step(each, draw):
    def guide_less(pipeline, step, timestep, tensors):
        pipeline._guidance_scale = 2.0
        return tensors

    right, wrong = each(
        lambda pipeline: torch.equal(
            draw(pipeline), draw(pipeline, callback_on_step_end=guide_less)
        )
    )
    assert not right
    assert wrong


def test_latents_of_another_dtype_are_cast(ours, theirs, draw, assert_same):
    latents = noise(1, 4, 8, 8)
    assert_same(draw(ours, latents=latents.double()), draw(ours, latents=latents))
    with pytest.raises(RuntimeError):
        draw(theirs, latents=latents.double())


def test_latents_of_another_size_are_refused(ours, theirs, draw):
    latents = noise(1, 4, 12, 12)
    with pytest.raises(ValueError, match=r"\(1, 4, 12, 12\).* 64x64 pixels start from \(1, 4, 8"):
        draw(ours, latents=latents)
    assert draw(theirs, latents=latents).shape == latents.shape


def test_features_are_cast_to_the_dtype_of_the_transformer(ours, theirs, draw):
    for pipeline in (ours, theirs):
        pipeline.transformer.to(torch.bfloat16)
    assert draw(ours).dtype == torch.bfloat16
    with pytest.raises(RuntimeError):
        draw(theirs)


def test_a_side_may_have_more_than_384_patches(ours, theirs, draw):
    size = {"width": 6160, "height": 16, "num_inference_steps": 1, "guidance_scale": 1.0}
    assert draw(ours, **size).isfinite().all()
    with pytest.raises(RuntimeError):
        draw(theirs, **size)


def test_a_text_without_any_token_gives_a_finite_picture(each, draw, tokenizer_without_bos):
    def finite(pipeline):
        pipeline.tokenizer = tokenizer_without_bos
        return draw(pipeline, "a large cat").isfinite().all()

    right, wrong = each(finite)
    assert right
    assert not wrong


def test_dynamic_shifting_depends_on_the_size(ours, theirs, draw):
    for pipeline in (ours, theirs):
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    draw(ours, width=64)
    small = ours.scheduler.sigmas
    draw(ours, width=128)
    large = ours.scheduler.sigmas
    assert (large[1:-1] > small[1:-1]).all()
    with pytest.raises(ValueError, match="`mu` must be passed"):
        draw(theirs)


def test_an_autoencoder_that_overflows_in_float16_decodes_in_float32(ours, theirs):
    def decoding_dtype(pipeline):
        seen = []
        pipeline.vae.half()
        hook = lambda module, arguments, output: seen.append(output.dtype)  # noqa: E731
        pipeline.vae.decoder.register_forward_hook(hook)
        pipeline("a cat", num_inference_steps=1, output_type="pt")
        return seen[0]

    assert isinstance(ours.vae, AutoencoderKL)
    assert ours.vae.config.force_upcast
    assert decoding_dtype(ours) == torch.float32
    assert ours.vae.dtype == torch.float16
    with pytest.raises(RuntimeError):
        decoding_dtype(theirs)


def test_asking_for_xformers_leaves_the_transformer_as_it_is(ours, theirs, draw):
    before = draw(ours)
    ours.transformer.enable_xformers_memory_efficient_attention()
    assert torch.equal(draw(ours), before)
    with pytest.raises((ModuleNotFoundError, ValueError)):
        theirs.transformer.enable_xformers_memory_efficient_attention()


def test_a_stochastic_scheduler_draws_from_the_generator(each, draw):
    def repeats(pipeline):
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
        return torch.equal(draw(pipeline), draw(pipeline))

    right, wrong = each(repeats)
    assert right
    assert not wrong


def test_a_scheduler_that_knows_eta_is_given_it(each, draw):
    class Recording(FlowMatchEulerDiscreteScheduler):
        def step(self, *arguments, eta="not given", **options):
            self.seen = eta
            return super().step(*arguments, **options)

    def eta(pipeline):
        pipeline.scheduler = Recording()
        draw(pipeline)
        return pipeline.scheduler.seen

    assert each(eta) == (0.0, "not given")
