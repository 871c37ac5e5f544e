"""Networks of other libraries, with random weights, as functions of width and outputs."""

from torch import nn


class Logits(nn.Module):
    """A language model that takes token indices and returns its logits at every position."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(input_ids=tokens.long()).logits


def gpt2(width, depth, inputs, vocabulary=64, head_size=8):
    from transformers import GPT2Config, GPT2LMHeadModel

    return Logits(GPT2LMHeadModel(GPT2Config(
        n_embd=width, n_layer=depth, n_head=width // head_size, n_positions=inputs[0], vocab_size=vocabulary,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False, bos_token_id=0, eos_token_id=0,
    )))  # fmt: skip


def llama(width, depth, inputs, vocabulary=64, head_size=8):
    from transformers import LlamaConfig, LlamaForCausalLM

    return Logits(LlamaForCausalLM(LlamaConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=depth,
        num_attention_heads=width // head_size, max_position_embeddings=inputs[0], vocab_size=vocabulary,
        use_cache=False, bos_token_id=0, eos_token_id=0,
    )))  # fmt: skip


def vit(width, depth, inputs, outputs, patch_size=2, head_size=8):
    from timm import create_model

    return create_model(
        "vit_tiny_patch16_224", embed_dim=width, depth=depth, num_heads=width // head_size,
        in_chans=inputs[0], img_size=inputs[1:], patch_size=patch_size, num_classes=outputs,
    )  # fmt: skip


def resnet18(width, inputs, outputs):
    """Torchvision's, of any width, for small images, with group norms in place of batch norms."""
    from torchvision.models.resnet import BasicBlock, ResNet

    def norm(channels):
        return nn.GroupNorm(4, channels)

    class Narrow(ResNet):
        def _make_layer(self, block, planes, *args, **keys):
            self.inplanes = width if planes == 64 else self.inplanes
            return super()._make_layer(block, planes // 64 * width, *args, **keys)

    model = Narrow(BasicBlock, [2, 2, 2, 2], norm_layer=norm)
    model.conv1, model.bn1 = (
        nn.Conv2d(inputs[0], width, 3, padding=1, bias=False),
        norm(width),
    )
    model.maxpool, model.fc = nn.Identity(), nn.Linear(8 * width, outputs)
    return model
