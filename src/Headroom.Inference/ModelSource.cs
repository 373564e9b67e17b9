using Headroom.Tokenizers;

namespace Headroom.Inference;

/// <summary>
/// Which model is meant, before a file of it is opened: base, adapter and tokenizer as local paths (a hub name has been
/// resolved already), and how the base's projections are to be held.
/// </summary>
/// <param name="path">The base: a Hugging Face folder, or a .gguf or .safetensors file.</param>
public sealed class ModelSource(string path)
{
    private ITokenizer? _tokenizer;

    /// <summary>The base.</summary>
    public string Path { get; } = path;
    /// <summary>Folder of an adapter in PEFT's form; null = the base alone.</summary>
    public string? Adapter { get; init; }
    /// <summary>Folder or file of the tokenizer; null = it lies with the base.</summary>
    public string? TokenizerPath { get; init; }
    /// <summary>Storage of the projections; null = as the file has them.</summary>
    public QuantizationOptions? Quantization { get; init; }
    /// <summary>
    /// An adapter that lies in its run gets the projections that it was trained over, whatever
    /// <see cref="Quantization"/> says.
    /// </summary>
    public bool AsTrained { get; init; }
    /// <summary>The base's own weights are to be read: no quantized copy stands in for them.</summary>
    public bool OwnWeights { get; init; }

    /// <summary>The tokenizer, read when it is first asked for.</summary>
    /// <exception cref="Core.HeadroomException">There is none, or it cannot be read.</exception>
    public ITokenizer Tokenizer => _tokenizer ??= TokenizerLoader.Load(TokenizerPath ?? Path);
}
