using System.Reflection;

namespace Headroom.Core;

/// <summary>What a file says it was made by.</summary>
internal static class Product
{
    /// <summary>Version of Headroom, with the commit where the build knew it.</summary>
    public static string Version { get; } =
        typeof(Product).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion
        ?? "unknown";
}
