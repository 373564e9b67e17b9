using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text;
using Headroom.Core;

namespace Headroom.Cuda;

/// <summary>
/// The parts of the kernels' sources that are made of host code, so that both have one: constants.cuh, a macro for each
/// of <see cref="KernelConstants"/> and for the blocks of GGUF; structs.cuh, each struct that kernels are given, with
/// its size asserted.
/// </summary>
internal static class KernelHeader
{
    /// <summary>Texts by the name under which sources include them.</summary>
    public static IReadOnlyDictionary<string, string> Files { get; } = new Dictionary<string, string>
    {
        ["constants.cuh"] = Constants(),
        ["structs.cuh"] = "// Made of KernelStructs.cs.\n"
            + Struct<Mask>() + Struct<Part>() + Struct<Parts>() + Struct<ColumnsBehind>() + Struct<StoredRows>()
            + Struct<NormEntry>() + Struct<AdamEntry>() + Struct<AdamConstants>(),
    };

    private static string Constants()
    {
        var text = new StringBuilder("// Made of KernelConstants.cs and Ggml.cs.\n");
        void Define(string name, object? value) => text.Append($"#define {name} {value}\n");
        foreach (var field in typeof(KernelConstants).GetFields())
        {
            object? value = field.GetRawConstantValue();
            Define(Macro(field.Name), value is uint u ? $"0x{u:X}u" : value);
        }
        foreach (var type in Enum.GetValues<GgmlType>().Where(t => !t.IsPlain()))
        {
            Define($"{type}", (int)type);
            Define($"{type}_VALUES", type.Block().Values);
            Define($"{type}_BYTES", type.Block().Bytes);
        }
        return text.ToString();
    }

    // Fields in the order of their declaration, each at its natural boundary: what kernels do of the same text.
    private static string Struct<T>()
        where T : unmanaged
    {
        var (name, size) = (typeof(T).Name, Unsafe.SizeOf<T>());
        string count = typeof(T).GetCustomAttribute<InlineArrayAttribute>() is { } a ? $"[{a.Length}]" : "";
        var fields = typeof(T)
            .GetFields(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic)
            .OrderBy(f => f.MetadataToken)
            .Select(f => $"{TypeOf(f)} {Name(f.Name)}{count}; ");
        return $"struct {name} {{ {string.Concat(fields)}}};\nstatic_assert(sizeof({name}) == {size}, \"{name}\");\n";
    }

    private static string TypeOf(FieldInfo field) =>
        field.GetCustomAttribute<PointerAttribute>() is { } p ? $"{p.Type}*"
        : field.FieldType == typeof(int) ? "int"
        : field.FieldType == typeof(uint) ? "u32"
        : field.FieldType == typeof(long) ? "i64"
        : field.FieldType == typeof(float) ? "float"
        : !field.FieldType.IsPrimitive ? field.FieldType.Name
        : throw new InvalidOperationException($"{field.DeclaringType!.Name}.{field.Name} has no type in kernels");

    /// <summary>The macro of a constant: FLASH_TILE of FlashTile, KIND_BF16 of KindBF16.</summary>
    public static string Macro(string name) =>
        string.Concat(
            name.Select((c, i) =>
                $"{(i > 0 && char.IsUpper(c) && !char.IsUpper(name[i - 1]) ? "_" : "")}{char.ToUpperInvariant(c)}"));

    private static string Name(string field) =>
        char.ToLowerInvariant(field.TrimStart('_')[0]) + field.TrimStart('_')[1..];
}
