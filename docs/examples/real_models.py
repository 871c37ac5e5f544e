"""Networks of other libraries, of any width, with random weights."""

from torch import nn

HEAD_SIZE = 8  # then 1/sqrt(d_head) does not change with width


class Logits(nn.Module):
    """A language model as a function from token indices to logits."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(input_ids=tokens).logits


def gpt2(width, depth, inputs):
    from transformers import GPT2Config, GPT2LMHeadModel

    positions, vocabulary = inputs
    config = GPT2Config(
        n_embd=width, n_layer=depth, n_head=width // HEAD_SIZE,
        n_positions=positions, vocab_size=vocabulary, use_cache=False,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return Logits(GPT2LMHeadModel(config))


def llama(width, depth, inputs):
    from transformers import LlamaConfig, LlamaForCausalLM

    positions, vocabulary = inputs
    config = LlamaConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=depth,
        num_attention_heads=width // HEAD_SIZE, max_position_embeddings=positions,
        vocab_size=vocabulary, use_cache=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return Logits(LlamaForCausalLM(config))


def vit(width, depth, inputs, outputs):
    from timm import create_model

    return create_model(
        "vit_tiny_patch16_224", embed_dim=width, depth=depth,
        num_heads=width // HEAD_SIZE, in_chans=inputs[0], img_size=inputs[1:],
        patch_size=2, num_classes=outputs,
    )  # fmt: skip


def resnet18(width, inputs, outputs):
    """For small images, with group norms in place of batch norms."""
    from torchvision.models.resnet import BasicBlock, ResNet

    def norm(channels):
        return nn.GroupNorm(4, channels)

    class Narrow(ResNet):
        def _make_layer(self, block, planes, *args, **keys):
            self.inplanes = width if planes == 64 else self.inplanes
            return super()._make_layer(block, planes // 64 * width, *args, **keys)

    model = Narrow(BasicBlock, [2, 2, 2, 2], norm_layer=norm)
    model.conv1 = nn.Conv2d(inputs[0], width, 3, padding=1, bias=False)
    model.bn1, model.maxpool = norm(width), nn.Identity()
    model.fc = nn.Linear(8 * width, outputs)
    return model
