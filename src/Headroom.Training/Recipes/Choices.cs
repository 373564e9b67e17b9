using System.Text.Json;
using System.Text.Json.Serialization;
using Headroom.Core;

namespace Headroom.Training;

/// <summary>
/// Options that take one of several words are enums. Their words are the members' names in snake_case, the same in
/// YAML, in --set, in JSON, in the reference and in messages.
/// </summary>
public static class Choices
{
    /// <summary>The words of an enum, in its order.</summary>
    public static IReadOnlyList<string> Of(Type type) =>
        [.. Enum.GetNames(type).Select(JsonNamingPolicy.SnakeCaseLower.ConvertName)];

    /// <summary>The word of a value.</summary>
    public static string Word(this Enum value) => JsonNamingPolicy.SnakeCaseLower.ConvertName(value.ToString());

    /// <summary>The value of a word.</summary>
    /// <param name="type">The enum.</param>
    /// <param name="key">The option, for the message.</param>
    /// <param name="word">What it is set to.</param>
    /// <exception cref="HeadroomException">It is none of the enum's words, which are named.</exception>
    public static object Parse(Type type, string key, string word)
    {
        var words = Of(type);
        int at = words.ToList().IndexOf(word);
        if (at < 0)
            throw new HeadroomException($"{key} '{HeadroomException.Value(word)}' is unknown.", $"Use {List(words)}.");
        return Enum.GetValues(type).GetValue(at)!;
    }

    /// <inheritdoc cref="Parse(Type, string, string)"/>
    public static T Parse<T>(string key, string word) where T : struct, Enum => (T)Parse(typeof(T), key, word);

    /// <summary>Words as a list: "a, b or c".</summary>
    internal static string List(IReadOnlyList<string> words) =>
        words.Count == 1 ? words[0] : string.Join(", ", words.SkipLast(1)) + " or " + words[^1];
}

/// <summary>An enum as its word in JSON.</summary>
public sealed class SnakeCaseEnum<T>() : JsonStringEnumConverter<T>(JsonNamingPolicy.SnakeCaseLower, false)
    where T : struct, Enum;

/// <summary>Where a run runs.</summary>
[JsonConverter(typeof(SnakeCaseEnum<DeviceChoice>))]
public enum DeviceChoice : byte
{
    /// <summary>A GPU when there is one, else the CPU.</summary>
    Auto,
    /// <summary>The CPU.</summary>
    Cpu,
    /// <summary>An NVIDIA GPU.</summary>
    Cuda,
}

/// <summary>When something is done while training (transformers <c>IntervalStrategy</c>).</summary>
[JsonConverter(typeof(SnakeCaseEnum<IntervalStrategy>))]
public enum IntervalStrategy : byte
{
    /// <summary>Never.</summary>
    No,
    /// <summary>Every so many updates.</summary>
    Steps,
    /// <summary>After each epoch.</summary>
    Epoch,
}

/// <summary>Learning-rate schedules (transformers <c>SchedulerType</c>).</summary>
[JsonConverter(typeof(SnakeCaseEnum<SchedulerType>))]
public enum SchedulerType : byte
{
    /// <summary>Falls in a line to 0.</summary>
    Linear,
    /// <summary>Falls by half a cosine to 0.</summary>
    Cosine,
    /// <summary>Stays, without warm-up.</summary>
    Constant,
    /// <summary>Stays after the warm-up.</summary>
    ConstantWithWarmup,
    /// <summary>Cosines that begin anew.</summary>
    CosineWithRestarts,
    /// <summary>Falls by a power to an end value.</summary>
    Polynomial,
    /// <summary>Falls with the square root of the updates.</summary>
    InverseSqrt,
    /// <summary>Cosine to a minimum.</summary>
    CosineWithMinLr,
    /// <summary>The same, with a warm-up that does not begin at 0.</summary>
    CosineWarmupWithMinLr,
    /// <summary>Warm-up, stable part, decay.</summary>
    WarmupStableDecay,
}

/// <summary>Type of the activations.</summary>
[JsonConverter(typeof(SnakeCaseEnum<Precision>))]
public enum Precision : byte
{
    /// <summary>What the device prefers.</summary>
    Auto,
    /// <summary>32-bit floats.</summary>
    Fp32,
    /// <summary>bfloat16.</summary>
    Bf16,
    /// <summary>16-bit floats, with loss scaling.</summary>
    Fp16,
}

/// <summary>Order of the training rows.</summary>
[JsonConverter(typeof(SnakeCaseEnum<SamplingStrategy>))]
public enum SamplingStrategy : byte
{
    /// <summary>Anew for each epoch, by the seed.</summary>
    Random,
    /// <summary>As they stand.</summary>
    Sequential,
    /// <summary>Rows of like length together.</summary>
    GroupByLength,
}

/// <summary>What happens to texts that two splits hold.</summary>
[JsonConverter(typeof(SnakeCaseEnum<DuplicateTexts>))]
public enum DuplicateTexts : byte
{
    /// <summary>They are refused.</summary>
    Error,
    /// <summary>They are dropped from training.</summary>
    Drop,
    /// <summary>They stay.</summary>
    Allow,
}
