namespace Headroom.Core;

/// <summary>Folders that a user asked for.</summary>
internal static class OutputFolder
{
    /// <summary>Makes a folder and what is missing above it.</summary>
    /// <param name="path">The folder.</param>
    /// <param name="toDo">What the user can do when it cannot be made, such as "Give another folder.".</param>
    /// <exception cref="HeadroomException">It cannot be made there; exit code 2.</exception>
    public static void Create(string path, string toDo)
    {
        try
        {
            FileLayer.Current.CreateFolder(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new HeadroomException($"{path} cannot be written: {e.Message}", toDo);
        }
    }
}
